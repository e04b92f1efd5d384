"""Passes requests to the process of the control plane and AWS's other services, and its answers back."""

from __future__ import annotations

import json

from mmekit.http.exchange import Exchange
from mmekit_endpoint.fleet.connection import Answer, NoAnswer, Request
from mmekit_endpoint.fleet.connections import Connections

#: What ends at each connection (RFC 9110, 7.6.1), and what each side writes itself.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class Proxy:
    """The way to the other process. Its socket listens always: who comes before the process does waits."""

    def __init__(self, address: tuple[str, int], max_answer_bytes: int) -> None:
        self._connections = Connections(max_answer_bytes, max_connections=64)
        self._connections.reach(address)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def handle(self, exchange: Exchange) -> None:
        """Answer a request with what the other process answers."""
        _Passage(exchange, self._connections).send()


class _Passage:
    """One request on its way there and back."""

    def __init__(self, exchange: Exchange, connections: Connections) -> None:
        self._exchange = exchange
        self._connections = connections
        self._started = False
        request = exchange.request
        target = request.path + (f"?{request.query}" if request.query else "")
        lines = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in request.headers
            if name.lower() not in _HOP_BY_HOP
        )
        head = b"%b %b HTTP/1.1\r\n%b" % (request.method.encode(), target.encode("latin-1"), lines)
        self._request = Request(head, request.body, self._done, self._on_head, self._write)
        exchange.on_close = self._cancel
        exchange.on_drain = self._request.resume

    def send(self) -> None:
        self._connections.send(self._request)

    def _cancel(self) -> None:
        self._connections.forget(self._request)

    def _on_head(self, answer: Answer) -> None:
        length = answer.headers.get(b"content-length")
        self._started = True
        self._exchange.start(
            answer.status, _headers(answer), length=int(length) if length is not None else None
        )

    def _write(self, data: bytes) -> None:
        if not self._exchange.write(data):
            self._request.pause()

    def _done(self, outcome: Answer | NoAnswer) -> None:
        exchange = self._exchange
        if exchange.closed:
            return
        if isinstance(outcome, NoAnswer):
            if self._started:
                exchange.abort()
            else:
                text = (
                    f"The control plane of the local endpoint does not answer: {outcome}. Its errors are in "
                    "the output of mmekit local; try again."
                )
                exchange.answer(
                    503,
                    [(b"content-type", b"application/x-amz-json-1.1")],
                    json.dumps({"__type": "ServiceUnavailable", "message": text}).encode(),
                )
        elif self._started:
            exchange.end()
        else:
            length = outcome.headers.get(b"content-length")
            is_head = exchange.request.method == "HEAD"
            exchange.answer(
                outcome.status,
                _headers(outcome),
                outcome.body,
                length=int(length) if is_head and length is not None else None,
            )


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in answer.headers.items() if name not in _HOP_BY_HOP]
