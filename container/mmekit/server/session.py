"""One request and how it is answered: JSON, an error, a model's answer (MMS: http/Session.java)."""

from __future__ import annotations

import itertools
import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import orjson

from mmekit.errors import MmekitError, PredictionFailed
from mmekit.http.exchange import Exchange
from mmekit.http.message import Request, error_response
from mmekit.server.access import AccessLog
from mmekit.server.statistics import Statistics
from mmekit.worker.messages import Headers, Reply

_log = logging.getLogger(__name__)

#: Ids of requests have the form of a UUID, version 4 (MMS: x-request-id). They must differ, they need not
#: be secret: what is random is drawn once for a server, which then counts.
_ID = uuid.UUID(bytes=os.urandom(16), version=4)
_ID_START = str(_ID)[:24]
_ids = itertools.count(_ID.node >> 1)

_JSON = (b"content-type", b"application/json")

#: The status of a request whose client left before its answer, in log and metrics only (as in nginx).
CLIENT_LEFT = 499

#: Longest target of a refused request in the access log; it may be any that was too long.
_MAX_REFUSED = 1000


class Kind(Enum):
    """What a request is for."""

    MANAGEMENT = "management"
    PREDICTION = "prediction"
    #: Asked for every few seconds: pings, the list of models, metrics.
    POLL = "poll"


# Reading a member of an enum costs several times as much as reading a global.
_PREDICTION, _POLL = Kind.PREDICTION, Kind.POLL


@dataclass(frozen=True, slots=True)
class Manners:
    """What all answers of a server have in common.

    ``cors``: headers that are added unless a handler has set them (MMS: NettyUtils.sendHttpResponse).
    ``access`` is None where no access log is wanted.
    """

    statistics: Statistics
    access: AccessLog | None = None

    cors: tuple[tuple[bytes, bytes], ...] = ()

    def refused(self, request: Request, status: int) -> None:
        """Note a request that the HTTP layer has answered itself (HttpServer's ``on_refused``)."""
        self.statistics.statuses[status] += 1
        if self.access is not None:
            request.path, request.query = request.path[:_MAX_REFUSED], request.query[:_MAX_REFUSED]
            self.access.answered(request, status, time.monotonic(), 0.0, 0)


class Session:
    """A request on its way to its answer; answered once, by ``json``, ``fail`` or ``send``.

    However it ends, it is counted and logged once: answered, or with 499 when its client leaves.
    """

    kind = Kind.MANAGEMENT
    #: The model that is asked, once that is known.
    model = ""

    def __init__(self, exchange: Exchange, manners: Manners) -> None:
        self.exchange = exchange
        self.manners = manners
        self.request_id = f"{_ID_START}{next(_ids):012x}"
        self.started_at = time.monotonic()
        exchange.on_close = self.client_left

    def json(self, status: int, value: object, reason: str | None = None) -> None:
        """Answer a value as MMS prints it: two spaces, a newline at the end (MMS: util/JsonUtils.java)."""
        body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        self.send(status, [_JSON], body, reason)

    def fail(self, error: MmekitError) -> None:
        """Answer an error as ``{"code", "type", "message"}``."""
        response = error_response(error)
        self.send(response.status, list(response.headers), response.body, response.reason)

    def send(self, status: int, headers: Headers, body: bytes | bytearray, reason: str | None = None) -> None:
        """Answer. Raises ValueError for what cannot be a head; nothing is sent then."""
        if self.manners.cors:
            headers = self._with_cors(headers)
        self.exchange.answer(
            status, headers, body, reason, b"x-request-id: %b\r\n" % self.request_id.encode()
        )
        if not self.exchange.closed:
            self.ended(status, len(body))

    def client_left(self) -> None:
        """The client has gone; what it asked for may still be done."""
        self.ended(CLIENT_LEFT, 0)

    def ended(self, status: int, size: int) -> None:
        """Count and log the request; ``size``: bytes of the answer's body."""
        exchange, manners = self.exchange, self.manners
        now = time.monotonic()
        seconds = now - self.started_at
        manners.statistics.statuses[status] += 1
        if self.kind is _PREDICTION:
            manners.statistics.predicted(self.model, status, seconds)
        if manners.access is not None:
            is_poll = self.kind is _POLL
            manners.access.answered(
                exchange.request, status, now, seconds, size, self.request_id, self.model, is_poll
            )

    def _with_cors(self, headers: Headers) -> Headers:
        present = {name.lower() for name, _ in headers}
        return [*headers, *(header for header in self.manners.cors if header[0] not in present)]


class Prediction(Session):
    """A session that waits for a model: the dispatcher's Caller over an HTTP exchange."""

    # Most answers leave these as they are: class attributes cost nothing per request.
    #: The head of a streamed answer could not be sent; the client knows already.
    broken = False
    # Of a streamed answer: its status, and bytes of its body so far
    status = 0
    sent = 0

    @property
    def gone(self) -> bool:
        return self.exchange.closed or self.broken

    def answer(self, reply: Reply, body: bytes | bytearray | memoryview) -> None:
        if type(body) is memoryview:
            body = bytes(body)
        try:
            self.send(reply.status, reply.headers, body, reply.reason or None)
        except ValueError as error:
            self.fail(PredictionFailed(f"The model's answer cannot be sent: {error}"))

    def start_stream(self, status: int, headers: Headers, reason: str, on_drain: Callable[[], None]) -> None:
        self.exchange.on_drain = on_drain
        self.status = status
        try:
            if self.manners.cors:
                headers = self._with_cors(headers)
            line = b"x-request-id: %b\r\n" % self.request_id.encode()
            self.exchange.start(status, headers, reason or None, line)
        except ValueError as error:
            self.broken = True
            self.fail(PredictionFailed(f"The model's answer cannot be sent: {error}"))

    def part(self, body: bytes | bytearray) -> bool:
        self.sent += len(body)
        return self.exchange.write(bytes(body))

    def client_left(self) -> None:
        if self.exchange.on_drain is not None:
            # A client that leaves while it is slow must not leave its worker paused.
            self.exchange.on_drain()
        self.ended(CLIENT_LEFT, self.sent)

    def end_stream(self, error: MmekitError | None) -> None:
        if self.broken or self.exchange.closed:
            return
        if error is None:
            self.exchange.end()
        else:
            _log.error(
                "A streamed answer was cut: %s",
                error,
                extra={"model": self.model, "request_id": self.request_id},
            )
            self.manners.statistics.cut_answers += 1
            self.exchange.abort()
        self.ended(self.status, self.sent)
