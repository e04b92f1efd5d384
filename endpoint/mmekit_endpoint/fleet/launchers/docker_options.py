"""How the engine is to run an instance's container: ``docker run``'s options for an order."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount

from mmekit_endpoint.fleet.launchers import Order

_log = logging.getLogger(__name__)

#: Where SageMaker's containers listen; SAGEMAKER_BIND_TO_PORT, which would say another, is left unset.
PORT = "8080/tcp"
#: Where a MultiModel container has its models.
MODELS_PATH = "/opt/ml/models"

#: Labels of a container; it is a service's whose state folder, id and machine they name.
STATE_LABEL = "mmekit.local.state"
SERVICE_LABEL = "mmekit.local.service"
HOST_LABEL = "mmekit.local.host"

#: What `docker logs` shows is kept short: the instance's log has it all.
_LOG_CONFIG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"})


def run_options(order: Order, engine: dict[str, Any], state: Path, service_id: str) -> dict[str, Any]:
    """Return the options; ``engine`` is what the engine says of itself (GET /info)."""
    given = order.resources
    # The engine's machine may be a smaller, virtual one.
    memory_bytes = min(given.memory_bytes, int(engine["MemTotal"]))
    variables = dict(order.container.environment)
    if order.container.multi_model:
        variables["SAGEMAKER_MULTI_MODEL"] = "true"
    name = f"{order.endpoint_name}-{order.variant_name}-{order.instance_id}-{service_id}"
    return {
        "name": _name(name),
        "hostname": _name(order.instance_id)[:63],
        "environment": variables,
        "labels": {
            STATE_LABEL: str(state),
            SERVICE_LABEL: service_id,
            HOST_LABEL: socket.gethostname(),
            "mmekit.local.endpoint": order.endpoint_name,
            "mmekit.local.variant": order.variant_name,
            "mmekit.local.instance": order.instance_id,
        },
        "mounts": _mounts(order),
        "ports": {PORT: ("127.0.0.1",)},
        "mem_limit": memory_bytes,
        "memswap_limit": memory_bytes,
        "nano_cpus": min(given.cpus, int(engine["NCPU"])) * 10**9,
        "device_requests": _devices(order, engine),
        "stop_signal": "SIGTERM",
        "init": False,
        "log_config": _LOG_CONFIG,
    }


def _mounts(order: Order) -> list[Mount]:
    """Return the mount of the models; a container of one model may bring it in its image.

    It is read-only, as AWS's own tests of MultiModel images mount it. SageMaker does not say; an image that
    writes there is better found here.
    """
    if order.container.multi_model:
        return [_mount(order.folder / "models", MODELS_PATH)]
    if order.container.model_data_url:
        return [_mount(order.folder / "model", "/opt/ml/model")]
    return []


def _mount(source: Path, target: str) -> Mount:
    return Mount(target, str(source.resolve()), type="bind", read_only=True)


def _devices(order: Order, engine: dict[str, Any]) -> list[DeviceRequest]:
    """Return the request for the instance type's GPUs.

    An engine without GPUs runs the container without, as it gives a large type fewer CPUs; the log says so.
    """
    wanted = order.resources.gpus
    if not wanted:
        return []
    if "nvidia" in engine.get("Runtimes", {}):
        return [DeviceRequest(count=wanted, capabilities=[["gpu"]])]
    text = (
        f"The instance type has {wanted} GPU{'s' if wanted > 1 else ''}, but the container engine offers "
        "none: the container runs without. The NVIDIA Container Toolkit makes this machine's available."
    )
    _log.warning("Instance %s: %s", order.instance_id, text)
    with open(order.log, "a") as log:
        log.write(f"mmekit local: {text}\n")
    return []


def _name(text: str) -> str:
    """Return a text as a container's name may be."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", text)
