"""Which launcher a service uses."""

from __future__ import annotations

import logging
from pathlib import Path

from mmekit_endpoint.errors import LaunchFailed
from mmekit_endpoint.fleet.launchers import Launcher
from mmekit_endpoint.fleet.launchers.process import ProcessLauncher

_log = logging.getLogger(__name__)


async def choose(wanted: str, state: Path, service_id: str, program: str | None = None) -> Launcher:
    """Return the launcher of that name: "docker", "process" or "auto".

    Auto is docker where an engine answers, else process; with a ``program``, which only processes can be,
    it is process. Raises LaunchFailed where "docker" is wanted and no engine answers.
    """
    if wanted == "process" or (wanted == "auto" and program is not None):
        return ProcessLauncher(program, state)
    # The docker SDK takes a fifth of a second to import.
    from mmekit_endpoint.fleet.launchers.docker import DockerLauncher

    launcher = DockerLauncher(state, service_id)
    try:
        await launcher.connect()
    except LaunchFailed as error:
        await launcher.close()
        if wanted == "docker":
            raise
        _log.info("Instances run as processes. %s", error)
        return ProcessLauncher(program, state)
    return launcher
