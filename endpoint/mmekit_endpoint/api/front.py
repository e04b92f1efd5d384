"""The one URL of the service: invocations go to the runtime, all but its own routes to the other process."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from mmekit.http.exchange import Exchange
from mmekit_endpoint.api.admin import PREFIX, Admin
from mmekit_endpoint.api.asynchronous import AsyncRuntime
from mmekit_endpoint.api.proxy import Proxy
from mmekit_endpoint.api.runtime import Runtime, request_id
from mmekit_endpoint.api.signing import Refused, Verifier, refusal
from mmekit_endpoint.api.wire import runtime_error
from mmekit_endpoint.errors import AccessDenied

_ENDPOINTS = "/endpoints/"


def _is_here(origin: bytes) -> bool:
    """Say whether a page (RFC 6454, 7: its Origin) comes from this machine."""
    host = urlsplit(origin.decode("latin-1")).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"


class Front:
    """Sends each request where it belongs. ``verifier`` is None where signatures are not verified."""

    def __init__(
        self,
        runtime: Runtime,
        asynchronous: AsyncRuntime,
        admin: Admin,
        proxy: Proxy,
        verifier: Verifier | None,
    ) -> None:
        self._admin = admin
        self._proxy = proxy
        self._verifier = verifier
        self._operations: dict[str, Callable[[Exchange, str], None]] = {
            "invocations": runtime.invoke,
            "invocations-response-stream": runtime.stream,
            "async-invocations": asynchronous.invoke,
        }

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request."""
        request = exchange.request
        path = request.path
        if b"origin" in request.first and not _is_here(request.first[b"origin"]):
            text = (
                f"A page of {request.first[b'origin']!r} asks for this. Web pages of other machines are "
                "refused: any page could put models here."
            )
            exchange.respond(runtime_error(AccessDenied(text), request_id()))
            return
        if path.startswith(PREFIX) and (self._verifier is None or request.peer.startswith(("127.", "::1:"))):
            self._admin.handle(exchange)
            return
        if self._verifier is not None:
            try:
                self._verifier.verify(request)
            except Refused as error:
                exchange.respond(refusal(request, error, request_id()))
                return
        if path.startswith(PREFIX):
            self._admin.handle(exchange)
            return
        if path.startswith(_ENDPOINTS) and request.method == "POST":
            name, _, operation = path[len(_ENDPOINTS) :].partition("/")
            answer = self._operations.get(operation)
            if answer is not None:
                answer(exchange, name)
                return
        self._proxy.handle(exchange)
