"""What the service tells of itself, below ``/_mmekit/``: no bucket can have that name.

``ping``, ``status`` and ``events`` in JSON, ``metrics`` as Prometheus text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from mmekit.errors import BadRequest, MethodNotAllowed, ResourceNotFound
from mmekit.http.exchange import Exchange
from mmekit.http.message import Response, error_response, parse_query
from mmekit_endpoint.fleet.reconciler import Reconciler
from mmekit_endpoint.telemetry.events import MAX_EVENTS, Event, EventLog
from mmekit_endpoint.telemetry.prometheus import collect
from mmekit_endpoint.telemetry.prometheus_text import expose
from mmekit_endpoint.telemetry.statistics import Statistics

PREFIX = "/_mmekit/"

_JSON = [(b"content-type", b"application/json")]
_TEXT = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]

#: Events of one answer.
_PAGE = 1000


class Admin:
    """Answers the service's own routes."""

    def __init__(self, reconciler: Reconciler, statistics: Statistics, events: EventLog) -> None:
        self._reconciler = reconciler
        self._statistics = statistics
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer a request below PREFIX."""
        request = exchange.request
        try:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(f"{request.path} is for GET.")
            if request.path == PREFIX + "metrics":
                self._spawn(self._metrics(exchange))
            else:
                exchange.respond(self._answer(request.path.removeprefix(PREFIX), request.query))
        except (BadRequest, MethodNotAllowed, ResourceNotFound) as error:
            exchange.respond(error_response(error))

    def _found(self, query: str) -> list[Event]:
        """Return the events after ``since``, the oldest first; without it the last ones."""
        since = parse_query(query).get("since")
        if since is None:
            return self._events.since(0, MAX_EVENTS)[-_PAGE:]
        if not since.isdigit():
            raise BadRequest(f"since is the sequence number of an event, a whole number, not {since!r}.")
        return self._events.since(int(since), _PAGE)

    async def _metrics(self, exchange: Exchange) -> None:
        # Writing hundreds of models' series takes tens of milliseconds: not in the event loop.
        families = collect(self._statistics, self._reconciler.views())
        text = await asyncio.to_thread(expose, families)
        if not exchange.closed:
            exchange.respond(Response(200, _TEXT, text))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, name: str, query: str) -> Response:
        if name == "ping":
            return Response(200, _JSON, b'{"status": "Healthy"}\n')
        if name == "status":
            status = {"endpoints": self._reconciler.views(), "statistics": self._statistics.snapshots()}
            return Response(200, _JSON, msgspec.json.encode(status))
        if name == "events":
            return Response(200, _JSON, msgspec.json.encode({"events": self._found(query)}))
        raise ResourceNotFound(f"There is no {PREFIX}{name}: expected ping, status, events or metrics.")
