"""The container engine, by docker's own SDK: it finds contexts, DOCKER_HOST and credentials by itself."""

from __future__ import annotations

from typing import Any

from mmekit_toolkit.errors import NoEngine

#: Seconds that the engine may take for one answer; pushes stream, with a time of their own.
_TIMEOUT_S = 120


def engine() -> Any:  # Any: docker ships no types
    """Return docker's client, with an engine that answered. Raises NoEngine."""
    from docker.client import DockerClient
    from docker.errors import DockerException

    try:
        client = DockerClient.from_env(timeout=_TIMEOUT_S, use_ssh_client=True)
        client.ping()
    except DockerException as error:
        raise NoEngine(
            f"no container engine answers ({error}). Start Docker, or name its address in DOCKER_HOST or "
            "with `docker context use`."
        ) from error
    return client
