"""The process of the control plane and AWS's other services: started, watched, started again, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from mmekit_endpoint.settings import Settings

logger = logging.getLogger(__name__)

#: Between its end and its next start, in seconds.
_PAUSE_S = 1.0

#: From SIGTERM to SIGKILL, in seconds.
_STOP_S = 5.0


class ControlProcess:
    """`python -m mmekit_endpoint.api.control`, on a socket that lives as long as the service."""

    def __init__(self, settings: Settings, launcher: str, event: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._launcher = launcher
        self._event = event
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._socket = socket.socket()
        # Inherited by accepted connections; gunicorn sets it too late for those that came before it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.bind(("127.0.0.1", 0))
        # Listening already: who comes before the process does waits in the kernel's queue.
        self._socket.listen(1024)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._socket.getsockname()
        return host, port

    async def start(self) -> None:
        """Start it, and see to it that it is started again when it ends."""
        await self._start()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """End it."""
        if self._watcher is not None:
            self._watcher.cancel()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
        self._socket.close()

    async def _start(self) -> None:
        settings = self._settings
        arguments = [
            "--fd",
            str(self._socket.fileno()),
            "--state",
            str(settings.state),
            "--launcher",
            self._launcher,
            "--region",
            settings.region,
            "--settle",
            str(settings.settle_s),
            "--parent",
            str(os.getpid()),
        ]
        if settings.s3_endpoint_url:
            arguments += ["--s3-endpoint-url", settings.s3_endpoint_url]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mmekit_endpoint.api.control",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[self._socket.fileno()],
        )

    async def _watch(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            self._event("control_plane_ended", f"exit code {code}; it is started again")
            logger.error("The control plane ended with exit code %s; it is started again", code)
            await asyncio.sleep(_PAUSE_S)
            try:
                await self._start()
            except OSError as error:  # no memory or no process to be had; its end is known already
                logger.error("The control plane cannot be started: %s", error)
