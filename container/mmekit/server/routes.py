"""Routes of SageMaker's contract (1.3) as MMS spells them: an exchange comes in, an answer goes out.

This is the only place that turns errors into responses and model answers into HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from mmekit.errors import (
    BadRequest,
    MethodNotAllowed,
    MmekitError,
    PredictionFailed,
    ResourceNotFound,
    ServiceUnavailable,
)
from mmekit.http.exchange import Exchange
from mmekit.http.message import Request, Response, error_response, parse_query, split_path
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.model import Registration
from mmekit.server.registry import Registry
from mmekit.worker.messages import Headers, Reply

_log = logging.getLogger(__name__)

#: Ids must differ, they need not be secret: twelve times as fast as the kernel's.
_random = random.Random()

_JSON: Headers = [(b"content-type", b"application/json")]
#: A load's body is a name and a path; parsing must not hold the loop.
_MAX_PARAMETERS_BYTES = 1024 * 1024

_NO_METHOD = "Requested method is not allowed, please refer to API document."
_NO_ROUTE = "Requested resource is not found, please refer to API document."

#: A name must fit into a request line: Limits.max_target_bytes less the rest of the path.
_MAX_NAME_BYTES = 8000

#: Name of the model in single-model mode, as sagemaker-inference starts it (``--models model=…``).
SINGLE_MODEL = "model"


class Routes:
    """The application of the HTTP server."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, ready: Callable[[], bool]) -> None:
        self.registry = registry
        self.dispatcher = dispatcher
        self.ready = ready
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request: at once, or when a worker or a load is done."""
        request_id = _request_id()
        try:
            self._route(exchange, request_id)
        except MmekitError as error:
            _fail(exchange, error, request_id)
        except Exception:  # noqa: BLE001 - the border of a request: our own mistake is its answer
            _log.exception("The server failed on %s %s.", exchange.request.method, exchange.request.path)
            _fail(exchange, MmekitError("The server failed; its log has the cause."), request_id)

    def _route(self, exchange: Exchange, request_id: str) -> None:
        request = exchange.request
        path = split_path(request.path)
        match path:
            case ["models", name, "invoke"]:
                self._invoke(exchange, name, request_id)
            case ["invocations"]:
                self._invoke(exchange, self._only_model(request), request_id)
            case ["ping", *_]:
                self._ping(exchange, request_id)
            case ["models"] if request.method == "GET":
                self._list(exchange, request_id)
            case ["models"] if request.method == "POST":
                self._start(self._load(exchange, request_id), exchange, request_id)
            case ["models", name] if request.method == "GET":
                _json(exchange, 200, self.registry.describe(self.registry.get(name)), request_id)
            case ["models", name] if request.method == "DELETE":
                self._start(self._unload(exchange, name, request_id), exchange, request_id)
            case ["models"] | ["models", _] | []:
                raise MethodNotAllowed(_NO_METHOD)
            case _:
                raise ResourceNotFound(_NO_ROUTE)

    # --- health and models ---------------------------------------------------------------------

    def _ping(self, exchange: Exchange, request_id: str) -> None:
        healthy = self.ready()
        _json(
            exchange, 200 if healthy else 503, {"status": "Healthy" if healthy else "Unhealthy"}, request_id
        )

    def _list(self, exchange: Exchange, request_id: str) -> None:
        query = parse_query(exchange.request.query)
        models, token = self.registry.page(query.get("next_page_token"), query.get("limit"))
        answer: dict[str, Any] = {}
        if token:
            answer["nextPageToken"] = token
        answer["models"] = [{"modelName": model.name, "modelUrl": model.registration.url} for model in models]
        _json(exchange, 200, answer, request_id)

    async def _load(self, exchange: Exchange, request_id: str) -> None:
        await self.registry.load(_registration(exchange.request))
        _json(exchange, 200, {"status": "Workers scaled"}, request_id)

    async def _unload(self, exchange: Exchange, name: str, request_id: str) -> None:
        await self.registry.unload(name)
        _json(exchange, 200, {"status": f'Model "{name}" unregistered'}, request_id)

    def _start(self, answer: Coroutine[Any, Any, None], exchange: Exchange, request_id: str) -> None:
        """Loads and unloads take a while; a client that leaves does not stop them."""
        task = asyncio.get_running_loop().create_task(_answered(answer, exchange, request_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- predictions -----------------------------------------------------------------------------

    def _only_model(self, request: Request) -> str:
        """Return the model of ``/invocations``: named in the query, else the only one there is."""
        name = parse_query(request.query).get("model_name")
        if name:
            return name
        models = self.registry.models
        if not self.registry.config.multi_model:
            return SINGLE_MODEL
        if len(models) == 1:
            return next(iter(models))
        raise BadRequest("Parameter model_name is required.")

    def _invoke(self, exchange: Exchange, name: str, request_id: str) -> None:
        request = exchange.request
        if request.method == "OPTIONS":
            raise MethodNotAllowed(_NO_METHOD)
        caller = _Client(exchange, request_id)
        self.dispatcher.invoke(name, caller, request_id, list(request.headers), request.body)


class _Client:
    """The other end of a prediction: the dispatcher's Caller over an HTTP exchange."""

    __slots__ = ("broken", "exchange", "request_id")

    def __init__(self, exchange: Exchange, request_id: str) -> None:
        self.exchange = exchange
        self.request_id = request_id
        #: The head of a streamed answer could not be sent; the client knows already.
        self.broken = False

    @property
    def gone(self) -> bool:
        return self.exchange.closed or self.broken

    def answer(self, reply: Reply, body: bytes | bytearray | memoryview) -> None:
        if type(body) is memoryview:
            body = bytes(body)
        headers = [*reply.headers, (b"x-request-id", self.request_id.encode())]
        try:
            self.exchange.respond(Response(reply.status, headers, body, reply.reason or None))
        except ValueError as error:
            self.fail(PredictionFailed(f"The model's answer cannot be sent: {error}"))

    def fail(self, error: MmekitError) -> None:
        _fail(self.exchange, error, self.request_id)

    def start_stream(self, status: int, headers: Headers, reason: str, on_drain: Callable[[], None]) -> None:
        # A client that leaves while it is slow must not leave its worker paused.
        self.exchange.on_drain = self.exchange.on_close = on_drain
        try:
            self.exchange.start(
                status, [*headers, (b"x-request-id", self.request_id.encode())], reason or None
            )
        except ValueError as error:
            self.broken = True
            self.fail(PredictionFailed(f"The model's answer cannot be sent: {error}"))

    def part(self, body: bytes | bytearray) -> bool:
        return self.exchange.write(bytes(body))

    def end_stream(self, error: MmekitError | None) -> None:
        if self.broken:
            return
        if error is None:
            self.exchange.end()
        else:
            _log.error("A streamed answer was cut: %s", error)
            self.exchange.abort()


async def _answered(answer: Coroutine[Any, Any, None], exchange: Exchange, request_id: str) -> None:
    try:
        await answer
    except MmekitError as error:
        _fail(exchange, error, request_id)
    except Exception:  # noqa: BLE001 - as above
        _log.exception("The server failed on %s %s.", exchange.request.method, exchange.request.path)
        _fail(exchange, MmekitError("The server failed; its log has the cause."), request_id)
    except asyncio.CancelledError:
        _fail(exchange, ServiceUnavailable("The server is stopping.", None), request_id)
        raise


def _json(exchange: Exchange, status: int, value: object, request_id: str) -> None:
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    exchange.respond(Response(status, [*_JSON, (b"x-request-id", request_id.encode())], body))


def _fail(exchange: Exchange, error: MmekitError, request_id: str) -> None:
    response = error_response(error)
    response.headers = [*response.headers, (b"x-request-id", request_id.encode())]
    exchange.respond(response)


def _request_id() -> str:
    """Return a new id in the form of a UUID, version 4 (MMS: x-request-id)."""
    digits = f"{_random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


# --- parameters of a load ------------------------------------------------------------------------


def _registration(request: Request) -> Registration:
    """Read ``POST /models``: JSON when the body says so, else the query (MMS: ManagementRequestHandler).

    Raises BadRequest that names the parameter, its value and what was expected.
    """
    values = _parameters(request)
    url = _text(values, "url")
    if not url:
        raise BadRequest(
            "Parameter url is required: the folder of the unpacked model, such as /opt/ml/models/NAME/model."
        )
    name = _text(values, "model_name")
    if not name:
        raise BadRequest("Parameter model_name is required.")
    if (size := len(quote(name, safe=""))) > _MAX_NAME_BYTES:
        raise BadRequest(
            f"Parameter model_name has {size} bytes in a path (percent-encoded); at most {_MAX_NAME_BYTES} "
            f"can be addressed."
        )
    target = request.header(b"x-amzn-sagemaker-target-model") or b""
    return Registration(
        name=name,
        url=url,
        handler=_text(values, "handler") or None,
        batch_size=_count(values, "batch_size", 1, 1, 10_000),
        max_batch_delay_ms=_count(values, "max_batch_delay", 0, 0, 3_600_000),
        initial_workers=_count(values, "initial_workers", 0, 0, 1024) or None,
        response_timeout_s=_count(values, "response_timeout", 0, 1, 86_400) or None,
        target_model=target.decode("latin-1"),
    )


def _parameters(request: Request) -> Mapping[str, Any]:
    media_type = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        return parse_query(request.query)
    if len(request.body) > _MAX_PARAMETERS_BYTES:
        raise BadRequest(
            f"The body of a load is {len(request.body)} bytes; at most {_MAX_PARAMETERS_BYTES} are read."
        )
    try:
        values = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise BadRequest(
            f'The body must be a JSON object such as {{"model_name": …, "url": …}}, not {_kind(values)}.'
        )
    return values


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"Parameter {name} must be a string, not {_kind(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"Parameter {name} has a lone surrogate, half a character: {value!a:.99}.") from None
    return value


def _count(values: Mapping[str, Any], name: str, default: int, minimum: int, maximum: int) -> int:
    value = values.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not minimum <= number <= maximum:
        raise BadRequest(
            f"Parameter {name} must be a whole number from {minimum} to {maximum}, not {value!r:.100}."
        )
    return number


def _kind(value: object) -> str:
    return {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }.get(type(value), "null")
