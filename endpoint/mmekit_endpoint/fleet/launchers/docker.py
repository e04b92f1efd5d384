"""Runs instances as containers of a Docker Engine, reached over this machine's loopback address."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import Any

from mmekit_endpoint.errors import LaunchFailed
from mmekit_endpoint.fleet.launchers import STOP_TIMEOUT_S, Order
from mmekit_endpoint.fleet.launchers.docker_container import LAST_WORDS_S, RunningContainer, describe_state
from mmekit_endpoint.fleet.launchers.docker_engine import ENGINE_ERRORS, DockerEngine, is_gone, launch_errors
from mmekit_endpoint.fleet.launchers.docker_images import DockerImages, resolved_name
from mmekit_endpoint.fleet.launchers.docker_log import Output, follow
from mmekit_endpoint.fleet.launchers.docker_options import (
    HOST_LABEL,
    MODELS_PATH,
    PORT,
    SERVICE_LABEL,
    STATE_LABEL,
    run_options,
)
from mmekit_endpoint.fleet.launchers.state_lock import is_served
from mmekit_endpoint.fleet.launchers.waiting import finished_or_undone, in_own_thread


class DockerLauncher:
    """Starts instances as containers. ``service_id`` tells this service from an earlier one of its state."""

    name = "docker"

    def __init__(self, state: Path, service_id: str, stop_timeout_s: float = STOP_TIMEOUT_S) -> None:
        self._state = state.resolve()
        self._service_id = service_id
        self._stop_timeout_s = stop_timeout_s
        self._engine = DockerEngine()
        self._images = DockerImages(self._engine)

    async def connect(self) -> None:
        """Return when the engine has answered. Raises LaunchFailed where none does."""
        await self._engine.client()

    async def launch(self, order: Order) -> RunningContainer:
        """Pull the image where it is not here and run it with ``serve``. Raises LaunchFailed."""
        image = await self._images.get(order.container)
        return await finished_or_undone(self._start(order, image), RunningContainer.stop)

    async def clean(self) -> list[str]:
        """Remove what an earlier service of this state folder left, and dead services of other folders.

        Raises LaunchFailed where the engine does not answer.
        """
        client = await self._engine.client()
        with launch_errors("Containers that were left cannot be removed"):
            return await self._engine.call(self._clean, client)

    async def close(self) -> None:
        """Let go of the engine; containers must have been stopped."""
        self._engine.close()

    async def _start(self, order: Order, image: Any) -> RunningContainer:
        client = await self._engine.client()
        name = order.container.image
        with launch_errors(f"A container of the image {name} cannot be started"):
            engine = await self._engine.call(client.info)
            options = run_options(order, engine, self._state, self._service_id)
            container = await self._engine.call(client.containers.create, name, ["serve"], **options)
            try:
                # Followed before the start, so that no line is missed.
                output = await self._engine.call(Output, client, container.id)
                log = in_own_thread(partial(follow, output, order.log), f"log {container.name}")
                await self._engine.call(container.start)
                await self._engine.call(container.reload)
                if not container.ports.get(PORT):
                    await asyncio.wait([log], timeout=LAST_WORDS_S)
                    how = describe_state(container.attrs["State"], options["mem_limit"])
                    raise LaunchFailed(f"The container {how} right after its start; its log may say why.")
            except BaseException:
                await self._engine.call(_remove, container)
                raise
        published = container.ports[PORT][0]
        return RunningContainer(
            self._engine,
            container,
            (published["HostIp"], int(published["HostPort"])),
            MODELS_PATH,
            resolved_name(image, name),
            options["mem_limit"],
            order.resources.gpus if options["device_requests"] else 0,
            self._stop_timeout_s,
            log,
        )

    def _clean(self, client: Any) -> list[str]:
        labelled = {"label": STATE_LABEL}
        removed = []
        for container in client.containers.list(all=True, filters=labelled, ignore_removed=True):
            if self._is_left(container.labels):
                _remove(container)
                removed.append(container.name)
        return removed

    def _is_left(self, labels: dict[str, str]) -> bool:
        if labels.get(SERVICE_LABEL) == self._service_id:
            return False
        if labels.get(HOST_LABEL) != socket.gethostname():
            return (
                False  # a service of another machine, or in a container: its folder cannot be seen from here
            )
        state = Path(labels[STATE_LABEL])
        return state == self._state or not is_served(state)


def _remove(container: Any) -> None:
    try:
        container.remove(v=True, force=True)
    except ENGINE_ERRORS as error:
        if not is_gone(error):
            raise
