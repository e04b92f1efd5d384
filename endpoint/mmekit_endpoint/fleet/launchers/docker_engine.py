"""The container engine: how it is reached, and the threads that wait for its answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import docker.errors
import requests
from docker.client import DockerClient

from mmekit_endpoint.errors import LaunchFailed

T = TypeVar("T")

#: What the docker SDK raises when the engine refuses or does not answer.
ENGINE_ERRORS = (docker.errors.DockerException, requests.RequestException)

#: An engine that is there answers in milliseconds.
_CONNECT_TIMEOUT_S = 5.0
#: One call; waits for containers and pulls have no limit.
_CALL_TIMEOUT_S = 60
_THREADS = 8
#: Connections kept: those of the threads, and of each container one that waits and one that brings its log.
_CONNECTIONS = 100


class DockerEngine:
    """One engine. Its calls run in threads of its own, so that the event loop never waits for it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")
        self._connecting = asyncio.Lock()
        self._client: Any = None  # docker.DockerClient, which has no types

    async def client(self) -> Any:
        """Return the SDK's client of the engine. Raises LaunchFailed where none answers."""
        async with self._connecting:
            if self._client is None:
                self._client = await self._in_thread(_connect)
            return self._client

    async def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function of the SDK in a thread. Raises what the SDK raises."""
        return await self._in_thread(partial(function, *arguments, **named))

    def close(self) -> None:
        """Close the connections to the engine."""
        self._threads.shutdown(wait=False)
        if self._client is not None:
            self._client.close()

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _connect() -> Any:
    """Find the engine as the docker command does: DOCKER_HOST, else the current context, else the socket."""
    try:
        client = DockerClient.from_env(timeout=_CONNECT_TIMEOUT_S, max_pool_size=_CONNECTIONS)
        client.ping()
    except (*ENGINE_ERRORS, OSError, ValueError) as error:
        host = os.environ.get("DOCKER_HOST")
        tried = f"DOCKER_HOST={host}" if host else "docker's current context, /var/run/docker.sock by default"
        raise LaunchFailed(
            f"No container engine answers. Tried {tried}: {_text(error)}. Start Docker, set DOCKER_HOST to "
            "where it listens, or run instances as processes (--launcher process)."
        ) from error
    client.api.timeout = _CALL_TIMEOUT_S
    return client


@contextmanager
def launch_errors(doing: str) -> Iterator[None]:
    """Turn the engine's refusal into LaunchFailed; ``doing`` is what was tried."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise LaunchFailed(f"{doing}: {_text(error)}.") from error


def is_gone(error: Exception) -> bool:
    """Whether the engine does not know the container, or knows that it does not run."""
    return isinstance(error, docker.errors.APIError) and error.status_code in (404, 409)


def _text(error: Exception) -> str:
    """Return the engine's own words without the SDK's frame around them."""
    explanation = getattr(error, "explanation", None)
    return str(explanation or error).strip().rstrip(".")
