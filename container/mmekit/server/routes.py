"""Routes: SageMaker's contract (1.3) and MMS's (2.2); an exchange comes in, its session answers it.

MMS listens on two connectors, one for inference and one for management; SageMaker wants both on one
port. ``Routes.on`` gives the application of a connector.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Flag, auto
from typing import Any

from mmekit.errors import (
    BadRequest,
    MethodNotAllowed,
    MmekitError,
    ResourceNotFound,
    ServiceUnavailable,
)
from mmekit.http.exchange import Application, Exchange
from mmekit.http.limits import MIB
from mmekit.http.message import Request, parse_query, split_path
from mmekit.server import openapi
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.model import Model
from mmekit.server.parameters import registration, scaling
from mmekit.server.prometheus import Exposition
from mmekit.server.registry import Loading, Registry
from mmekit.server.session import Kind, Manners, Prediction, Session
from mmekit.server.startup import SINGLE_MODEL

_log = logging.getLogger(__name__)

# Reading a member of an enum costs several times as much as reading a global.
_PREDICTION = Kind.PREDICTION

_NO_METHOD = "Requested method is not allowed, please refer to API document."
_NO_ROUTE = "Requested resource is not found, please refer to API document."


class Connector(Flag):
    """What a listener serves (MMS: util/ConnectorType.java)."""

    INFERENCE = auto()
    MANAGEMENT = auto()
    BOTH = INFERENCE | MANAGEMENT


class Routes:
    """The applications of the HTTP server's listeners."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        ready: Callable[[], bool],
        manners: Manners,
        exposition: Exposition,
    ) -> None:
        self.registry = registry
        self.dispatcher = dispatcher
        self.ready = ready
        self.manners = manners
        self.exposition = exposition
        self._tasks: set[asyncio.Task[None]] = set()

    def on(self, connector: Connector) -> Application:
        """Return the application of a connector."""
        inference, management = Connector.INFERENCE in connector, Connector.MANAGEMENT in connector

        def answer(exchange: Exchange) -> None:
            session = Prediction(exchange, self.manners)
            try:
                path = split_path(exchange.request.path)
                if not (
                    (exchange.request.method == "OPTIONS" and self._preflight(session))
                    or (inference and self._inference(session, path))
                    or (management and self._management(session, path))
                    or self._metrics(session, path)
                    or self._description(session, path, connector)
                ):
                    raise ResourceNotFound(_NO_ROUTE)
            except MmekitError as error:
                session.fail(error)
            except Exception:  # noqa: BLE001 - the border of a request: our own mistake is its answer
                _failed(session)

        return answer

    # --- about the server ------------------------------------------------------------------------

    def _metrics(self, session: Session, path: list[str]) -> bool:
        if path != ["metrics"]:
            return False
        if session.exchange.request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_NO_METHOD)
        session.kind = Kind.POLL
        self._start(self._render(session), session)
        return True

    async def _render(self, session: Session) -> None:
        accept = session.exchange.request.header(b"accept") or b""
        content_type, text = await self.exposition.render(accept.decode("latin-1"))
        session.send(200, [(b"content-type", content_type.encode("latin-1"))], text)

    def _preflight(self, session: Session) -> bool:
        """Answer a browser that asks first; the answer is in the headers that all answers have."""
        request = session.exchange.request
        if not (
            self.manners.cors
            and request.header(b"origin") is not None
            and request.header(b"access-control-request-method") is not None
        ):
            return False
        session.send(204, [], b"")
        return True

    def _description(self, session: Session, path: list[str], connector: Connector) -> bool:
        match path:
            case [] | ["*"]:
                if session.exchange.request.method != "OPTIONS":
                    raise MethodNotAllowed(_NO_METHOD)
            case ["api-description"]:
                pass
            case ["api-description", *_]:
                raise MethodNotAllowed(_NO_METHOD)
            case _:
                return False
        config = self.registry.config
        wanted = Connector.INFERENCE in connector, Connector.MANAGEMENT in connector
        session.json(200, openapi.document(config, *wanted))
        return True

    # --- inference -------------------------------------------------------------------------------

    def _inference(self, session: Prediction, path: list[str]) -> bool:
        request = session.exchange.request
        match path:
            case ["models", name, "invoke"]:
                self._invoke(session, name, request.query)
            case ["invocations"]:
                self._invoke(session, self._only_model(request), request.query)
            case ["predictions", name, *_]:
                self._invoke(session, name)
            case ["ping", *_]:
                self._ping(session)
            case ["execution-parameters", *_]:
                self._execution_parameters(session)
            case [name, "predict"] if name not in ("models", "api-description"):
                self._invoke(session, name, request.query)
            case _:
                return False
        return True

    def _invoke(self, session: Prediction, name: str, query: str = "") -> None:
        """Predict; ``query`` is what of it becomes an input (MMS: InferenceRequestHandler)."""
        request = session.exchange.request
        session.model = name
        if request.method == "OPTIONS":
            session.json(200, openapi.model_document(self.registry.config, self.registry.get(name)))
            return
        session.kind = _PREDICTION
        self.dispatcher.invoke(
            name, session, session.request_id, request.headers, request.body, query, session.started_at
        )

    def _only_model(self, request: Request) -> str:
        """Return the model of ``/invocations``: named in the query, else the only one there is."""
        name = parse_query(request.query).get("model_name")
        if name:
            return name
        if self.registry.config.single_model:
            return SINGLE_MODEL
        models = self.registry.models
        at_startup = [name for name, model in models.items() if model.at_startup]
        for names in (at_startup, list(models)):
            if len(names) == 1:
                return names[0]
        raise BadRequest("Parameter model_name is required.")

    def _ping(self, session: Session) -> None:
        session.kind = Kind.POLL
        if self.ready():
            session.json(200, {"status": self._health()})
        else:
            session.json(503, {"status": "Unhealthy"})

    def _health(self) -> str:
        """Say in MMS mode, in MMS's words, how many of the workers that were asked for are there."""
        if not self.registry.config.mms_mode:
            return "Healthy"
        models = self.registry.models.values()
        asked = sum(model.min_copies for model in models)
        there = sum(_workers_there(model) for model in models)
        if there >= asked:
            return "Healthy"
        return "Partial Healthy" if there else "Unhealthy"

    def _execution_parameters(self, session: Session) -> None:
        """What SageMaker's batch transform asks for (contract 2.14)."""
        if session.exchange.request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(_NO_METHOD)
        config = self.registry.config
        answer = {
            "MaxConcurrentTransforms": max(1, config.copies),
            "BatchStrategy": "MULTI_RECORD",
            # To SageMaker 0 means that there is no limit.
            "MaxPayloadInMB": max(1, config.max_body_bytes // MIB),
        }
        session.json(200, answer)

    # --- management ------------------------------------------------------------------------------

    def _management(self, session: Session, path: list[str]) -> bool:
        method = session.exchange.request.method
        match path:
            case ["models"] if method == "GET":
                self._list(session)
            case ["models"] if method == "POST":
                self._start(self._register(session), session)
            case ["models", name] if method == "GET":
                session.model = name
                session.json(200, self.registry.describe(self.registry.get(name)))
            case ["models", name] if method == "PUT":
                self._start(self._scale(session, name), session)
            case ["models", name] if method == "DELETE":
                self._start(self._unregister(session, name), session)
            case ["models"] | ["models", _]:
                raise MethodNotAllowed(_NO_METHOD)
            case _:
                return False
        return True

    def _list(self, session: Session) -> None:
        session.kind = Kind.POLL
        query = parse_query(session.exchange.request.query)
        models, token = self.registry.page(query.get("next_page_token"), query.get("limit"))
        answer: dict[str, Any] = {}
        if token:
            answer["nextPageToken"] = token
        answer["models"] = [{"modelName": model.name, "modelUrl": model.registration.url} for model in models]
        session.json(200, answer)

    async def _register(self, session: Session) -> None:
        wanted = registration(session.exchange.request)
        session.model = wanted.name
        loading = await self.registry.load(wanted)
        session.model = loading.model.name
        if loading.model.min_copies:
            _answer_loading(session, loading)
        else:
            session.json(200, {"status": f'Model "{session.model}" registered'})

    async def _scale(self, session: Session, name: str) -> None:
        session.model = name
        _answer_loading(session, await self.registry.scale(name, scaling(session.exchange.request)))

    async def _unregister(self, session: Session, name: str) -> None:
        session.model = name
        await self.registry.unload(name)
        session.json(200, {"status": f'Model "{name}" unregistered'})

    def _start(self, answer: Coroutine[Any, Any, None], session: Session) -> None:
        """Loads and unloads take a while; a client that leaves does not stop them."""
        task = asyncio.get_running_loop().create_task(_answered(answer, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _workers_there(model: Model) -> int:
    """Count a model's workers; one that was loaded and is at rest comes back when it is called."""
    if model.quarantine:
        return 0
    if not model.workers and model.was_loaded and not model.loads():
        return model.min_copies
    return min(len(model.workers), model.min_copies)


def _answer_loading(session: Session, loading: Loading) -> None:
    """Say how far the workers of a model are (contract 2.5, 2.6)."""
    if loading.done:
        session.json(200, {"status": "Workers scaled"})
    elif loading.superseded:
        session.json(210, {"status": "Workers scaling in progress..."}, "Partial Success")
    else:
        session.json(202, {"status": "Processing worker updates..."})


async def _answered(answer: Coroutine[Any, Any, None], session: Session) -> None:
    try:
        await answer
    except MmekitError as error:
        session.fail(error)
    except Exception:  # noqa: BLE001 - the border of a request, as in Routes.on
        _failed(session)
    except asyncio.CancelledError:
        session.fail(ServiceUnavailable("The server is stopping.", None))
        raise


def _failed(session: Session) -> None:
    request = session.exchange.request
    _log.exception("The server failed on %s %s.", request.method, request.path)
    session.fail(MmekitError("The server failed; its log has the cause."))
