"""Everything that can be set of the local endpoint, once: name, unit, default, meaning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one service. `mmekit_endpoint.command` makes the options from them."""

    host: str = "127.0.0.1"
    port: int = 8765
    #: Folder of definitions, objects, volumes and logs.
    state: Path
    #: Whether ``state`` goes with the service.
    state_is_temporary: bool = False
    #: auto, docker, process
    launcher: str = "auto"
    #: Folder of archives that an endpoint named ``endpoint_name`` serves without any AWS call.
    models: Path | None = None
    endpoint_name: str = "local"
    #: The image of that endpoint (docker).
    image: str = "mmekit:cpu"
    #: Its instance type: memory, CPUs and GPUs.
    instance_type: str = "ml.m5.large"
    #: Process launcher: what is run as ``PROGRAM serve`` in place of an image; None is this mmekit.
    program: str | None = None
    #: Region of definitions where requests are not signed.
    region: str = "us-east-1"
    #: An object store in place of the embedded one, and what it is asked with.
    s3_endpoint_url: str | None = None
    #: Access key id → secret; where there are any, signatures are verified.
    keys: dict[str, str]

    # --- times, in seconds
    #: Of one invocation, waiting for a cold model included (AWS: 60).
    invoke_timeout_s: float = 60.0
    #: Of a streaming invocation (AWS: 8 minutes).
    stream_timeout_s: float = 480.0
    #: Of download and load together (AWS: 360).
    load_timeout_s: float = 360.0
    #: From a container's start to its first good /ping (AWS: 8 minutes).
    startup_timeout_s: float = 480.0
    #: How long a store that does not answer is asked again.
    store_patience_s: float = 20.0
    #: For how long a failed load is answered from memory.
    failure_memory_s: float = 5.0
    #: How long Create, Update and Delete wait for their end before they answer; AWS answers at once.
    settle_s: float = 10.0
    #: Between two health checks (AWS: about 5).
    health_period_s: float = 5.0
    #: Until an extra copy of a model that nobody calls is unloaded.
    copy_idle_s: float = 60.0
    #: Between two publications of metrics (AWS: 60).
    metrics_period_s: float = 10.0

    # --- limits
    #: Request and answer body of an invocation (AWS: 25 MB).
    max_payload_bytes: int = 25 * MIB
    #: Share of an instance's memory above which a load unloads another model first, in percent.
    memory_percent: float = 80.0
    #: Requests that one copy of a model gets at the same time; others wait.
    max_in_flight: int = 32
    #: Requests in flight or waiting for one copy from which on another instance gets the model too.
    hot_in_flight: int = 8
    #: Volume of an instance where the endpoint configuration has no VolumeSizeInGB; None is by instance type.
    volume_bytes: int | None = None
