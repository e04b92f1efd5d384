"""A container of an image, started as SageMaker starts it, asked what SageMaker asks first, and removed."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from mmekit_toolkit.images.requirements import PORT, Check, State

#: SageMaker's own patience (AWS: your-algorithms-inference-code); models are not loaded at start.
START_TIMEOUT_S = 240
#: Of one attempt (AWS: the same page).
_PING_TIMEOUT_S = 2
_POLL_S = 0.1
#: What docker's SDK has in place of an address for DOCKER_HOST=ssh://…
_OVER_SSH = "http+docker://ssh"
_LOG_LINES = 15


def start(client: Any, image: str) -> Check:  # Any: docker ships no types
    """Say whether a container of the image answers GET /ping and GET /models with 200.

    With its last log lines when it does not. Raises docker's errors when the engine itself fails.
    """
    from docker.errors import APIError

    if client.api.base_url == _OVER_SSH:
        found = "no container was started: the engine is reached over SSH, its containers are not."
        return Check("start", State.WARNING, found)
    with _container(client, image) as container:
        try:
            container.start()
        except APIError as error:
            return _failed(f"the container does not start: {error.explanation}")
        return _probe(client, container)


@contextlib.contextmanager
def _container(client: Any, image: str) -> Iterator[Any]:
    container = client.containers.create(
        image,
        ["serve"],
        environment={"SAGEMAKER_MULTI_MODEL": "true"},
        # Loopback is the engine's own; one that is reached by TCP is on another machine.
        ports={f"{PORT}/tcp": (None if _remote_host(client) else "127.0.0.1", None)},
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def _probe(client: Any, container: Any) -> Check:
    began = time.monotonic()
    heard = "nothing listened"
    while time.monotonic() < began + START_TIMEOUT_S:
        container.reload()
        state = container.attrs["State"]
        if not state["Running"]:
            return _failed(_ended(state), container)
        for host, port in addresses(container.attrs, _remote_host(client)):
            ping = _get(host, port, "/ping")
            heard = ping if isinstance(ping, str) else f"it was {ping}"
            if ping == 200:
                return _ask_for_models(host, port, time.monotonic() - began, container)
        time.sleep(_POLL_S)  # between attempts, as SageMaker's own pings come in intervals
    return _failed(f"GET /ping on port {PORT} was not 200 within {START_TIMEOUT_S} s ({heard})", container)


def _ask_for_models(host: str, port: int, took_s: float, container: Any) -> Check:
    """SageMaker asks for the list right after each ping (github.com/pytorch/serve/issues/1028)."""
    answer = _get(host, port, "/models")
    if answer == 200:
        return Check("start", State.OK, f"starts: /ping is 200 after {took_s:.1f} s, GET /models 200")
    return _failed(f"GET /models with no model loaded: expected 200, got {answer}", container)


def addresses(attrs: Mapping[str, Any], remote_host: str | None) -> Iterator[tuple[str, int]]:
    """Yield where the container's server may be reached, from the engine's description of the container.

    The published port, then the container's own address: who runs in a container of a local engine, as CI
    jobs do, has another loopback than the engine.
    """
    settings = attrs["NetworkSettings"]
    for binding in (settings.get("Ports") or {}).get(f"{PORT}/tcp") or ():
        yield remote_host or "127.0.0.1", int(binding["HostPort"])
        break  # the same port again for IPv6
    networks = (settings.get("Networks") or {}).values()
    own = [network["IPAddress"] for network in networks if network.get("IPAddress")]
    if own and not remote_host:
        yield own[0], PORT


def _remote_host(client: Any) -> str | None:
    url = urlsplit(client.api.base_url)
    return url.hostname if url.scheme in ("http", "https") else None


def _get(host: str, port: int, path: str) -> int | str:
    """Return the answer's status, or why there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=_PING_TIMEOUT_S)
    try:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            answer.read()
            return answer.status
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def _ended(state: Mapping[str, Any]) -> str:
    why = ", killed for memory" if state.get("OOMKilled") else ""
    error = f": {state['Error']}" if state.get("Error") else ""
    return f"the container ended with code {state.get('ExitCode')}{why} instead of serving{error}"


def _failed(found: str, container: Any = None) -> Check:
    log = "" if container is None else container.logs(tail=_LOG_LINES).decode(errors="replace").rstrip()
    lines = "".join(f"\n           | {line}" for line in log.splitlines())
    return Check("start", State.FAULT, found, f"Its last log lines:{lines}" if lines else "")
