"""The request cycle of any handler: parse each alone, group, stack, predict, split, encode each.

A stacked call that raises is run again, one request at a time, once: a caller never gets another
caller's error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from mmekit.errors import BadRequest, ModelLoadError, PredictionFailed, UnsupportedMediaType
from mmekit_handlers.accept import MediaType, choose, most_wanted, parse, plain_content_type
from mmekit_handlers.base import JSON_CSV_NPY, Body, Context, Handler, Request, Response
from mmekit_handlers.functions import UserFunction, UserFunctions

#: Rows in one stacked call. Past this a call costs its rows, not its fixed part (32 rows: 1.1–1.7 × one).
MAX_STACKED_ROWS = 64

#: Which handler serves what a user's ``model_fn`` returned: by the package of its class or a base of it.
#: The order of the classes decides, so an ``XGBClassifier``, which is also sklearn's, goes to XGBoost.
_HANDLERS = {
    "xgboost": ("mmekit_handlers.xgboost", "XGBoostHandler"),
    "sklearn": ("mmekit_handlers.sklearn", "SklearnHandler"),
    "torch": ("mmekit_handlers.pytorch", "PyTorchHandler"),
}

#: Content types that user code gets as str. Only these: what sagemaker-inference leaves as bytes stays so.
_TEXT_FOR_USERS = ("application/json", "text/csv")

#: What a call may come to.
Outcome: TypeAlias = Response | Exception
#: Makes the context of a request; given None, that of the load.
NewContext: TypeAlias = Callable[[Request | None], Context]


@dataclass(slots=True)
class _Parsed:
    """A request whose body has been read."""

    index: int
    request: Request
    context: Context
    data: Any


class Transformer:
    """One loaded model: its handler, the user's functions where there are some, and the cycle."""

    def __init__(
        self,
        handler: Handler | None,
        functions: UserFunctions | None,
        model_dir: str,
        new_context: NewContext,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Load the model from ``model_dir``.

        ``handler`` is the one that recognised the folder, None when none did; a user's ``model_fn``
        may return something else, which is then served by the handler of its own framework, made
        with ``environ``. Raises ``ModelLoadError`` or ``InvalidModel``; what the user's own code
        raises passes through.
        """
        self._functions = functions or UserFunctions(file="")
        self._new_context = new_context
        self._handler, self.model = self._load(handler, model_dir, environ or {})
        #: May be given several requests in one call.
        self.batches = self._may_stack()

    def __call__(self, requests: Sequence[Request], alone: bool = False) -> list[Outcome]:
        """Answer requests, in order; what one of them raised stands in its place.

        ``alone`` forbids stacking.
        """
        if self._functions.transform_fn is not None:
            return [self._attempt(self._transform, request) for request in requests]
        if len(requests) == 1:
            return [self._attempt(self._answer, requests[0])]
        if alone or not self.batches:
            return [self._attempt(self._answer, request) for request in requests]
        return self._answer_stacked(requests)

    # Loading

    def _load(
        self, handler: Handler | None, model_dir: str, environ: Mapping[str, str]
    ) -> tuple[Handler, Any]:
        user = self._functions
        context = self._new_context(None)
        if user.pre_model_fn:
            user.pre_model_fn(model_dir, context)
        if user.model_fn:
            model = user.model_fn(model_dir, context)
            handler = _handler_of(model, handler, environ)
            if not user.predict and type(handler) is Handler:
                _check_can_predict(model, user.model_fn)
        elif handler is None:
            where = f"{user.file} defines no model_fn" if user.file else "there is no inference.py"
            raise ModelLoadError(
                f"{where} and no built-in handler recognises a model file; write model_fn(model_dir)"
            )
        else:
            model = handler.model_fn(model_dir)
        if not user.predict:
            model = handler.prepare(model)
        if user.model_warmup_fn:
            user.model_warmup_fn(model_dir, model, context)
        return handler, model

    def _may_stack(self) -> bool:
        user = self._functions
        if user.transform_fn:
            return False
        if user.handle_requests:
            # A predict_fn that asks for the context asks about one request.
            return user.row_wise and not (user.predict_fn and user.predict_fn.takes_context)
        return self._handler.row_wise

    # One request

    def _attempt(self, step: Callable[[Request], Response], request: Request) -> Outcome:
        try:
            return step(request)
        except Exception as error:  # noqa: BLE001 - the border of a request: its error is its answer
            return error

    def _answer(self, request: Request) -> Response:
        context = self._new_context(request)
        data = self._input(request, context)
        return self._output(self._predict(data, context), request, context)

    def _transform(self, request: Request) -> Response:
        function = self._functions.transform_fn
        assert function is not None
        context = self._new_context(request)
        body, content_type = self._as_user_sees(request)
        result = function(self.model, body, content_type, self._wanted(request), context)
        return self._response(result, function, request, context)

    def _input(self, request: Request, context: Context) -> Any:
        function = self._functions.input_fn
        if function is None:
            return self._handler.input_fn(request.body, request.content_type, context)
        body, content_type = self._as_user_sees(request)
        return function(body, content_type, context)

    def _as_user_sees(self, request: Request) -> tuple[str | Body, str]:
        header = request.content_type or self._handler.default_content_type
        return _text_where_text(request.body, parse(header)), plain_content_type(header)

    def _predict(self, data: Any, context: Context) -> Any:
        function = self._functions.predict_fn
        if function is None:
            return self._handler.predict_fn(data, self.model, context)
        prediction = function(data, self.model, context)
        if prediction is None and self._functions.output_fn is None:
            raise PredictionFailed(f"{function.place}: predict_fn returned None; expected a prediction")
        return prediction

    def _output(self, prediction: Any, request: Request, context: Context) -> Response:
        function = self._functions.output_fn
        if function is not None:
            return self._response(
                function(prediction, self._wanted(request), context), function, request, context
            )
        if isinstance(prediction, Iterator) and self._functions.predict_fn is not None:
            return self._response(prediction, self._functions.predict_fn, request, context)
        body, content_type = self._handler.output_fn(prediction, request.accept, context)
        response = Response(body, content_type)
        if self._functions.handle_requests:
            _apply_context(response, context)
        return response

    def _wanted(self, request: Request) -> str:
        handler = self._handler
        default = handler.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or handler.default_accept
        return most_wanted(request.accept, default)

    def _response(self, result: Any, function: UserFunction, request: Request, context: Context) -> Response:
        """Turn what a user's function returned, a body or ``(body, content type)``, into an answer."""
        body, content_type = result, None
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str | None):
            body, content_type = result
        explicit = content_type is not None
        if isinstance(body, dict | list) or hasattr(body, "__array__"):
            body, content_type = self._encode(body, content_type, request)
        response = Response(_body(body, function), content_type or self._wanted(request))
        _apply_context(response, context, keep_content_type=explicit)
        return response

    def _encode(self, value: Any, content_type: str | None, request: Request) -> tuple[bytes, str]:
        """Write an array as the caller wants it; a dict or list is JSON, as MMS writes it."""
        from mmekit_handlers import codecs

        if content_type is not None:
            return codecs.encode(value, parse(content_type).name), content_type
        if isinstance(value, dict | list):
            return codecs.encode(value, "application/json"), "application/json"
        handler = self._handler
        preferred = handler.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or None
        chosen = choose(request.accept, JSON_CSV_NPY, handler.default_accept, preferred)
        return codecs.encode(value, chosen), chosen

    # Several requests

    def _answer_stacked(self, requests: Sequence[Request]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(requests)
        groups: dict[Hashable, list[_Parsed]] = {}
        for index, request in enumerate(requests):
            try:
                context = self._new_context(request)
                parsed = _Parsed(index, request, context, self._input(request, context))
                key = self._handler.group_key(parsed.data, context)
            except Exception as error:  # noqa: BLE001 - the border of a request
                outcomes[index] = error
                continue
            groups.setdefault(("alone", index) if key is None else ("key", key), []).append(parsed)
        for group in groups.values():
            for chunk in self._chunks(group):
                for parsed, outcome in zip(chunk, self._answer_chunk(chunk), strict=True):
                    outcomes[parsed.index] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _chunks(self, group: list[_Parsed]) -> Iterator[list[_Parsed]]:
        """Cut a group so that no call has more than ``MAX_STACKED_ROWS`` rows, unless one request has."""
        chunk: list[_Parsed] = []
        total = 0
        for parsed in group:
            rows = self._handler.rows(parsed.data) if len(group) > 1 else 1
            if chunk and total + rows > MAX_STACKED_ROWS:
                yield chunk
                chunk, total = [], 0
            chunk.append(parsed)
            total += rows
        yield chunk

    def _answer_chunk(self, chunk: list[_Parsed]) -> list[Outcome]:
        if len(chunk) > 1:
            try:
                predictions = self._predict_stacked(chunk)
            except Exception:  # noqa: BLE001 - each is run again alone and gets its own error
                return [self._answer_parsed(parsed) for parsed in chunk]
            return [
                self._attempt_output(prediction, parsed)
                for prediction, parsed in zip(predictions, chunk, strict=True)
            ]
        return [self._answer_parsed(chunk[0])]

    def _predict_stacked(self, chunk: list[_Parsed]) -> list[Any]:
        handler = self._handler
        stacked = handler.stack([parsed.data for parsed in chunk])
        prediction = self._predict(stacked, chunk[0].context)
        return handler.split(prediction, [handler.rows(parsed.data) for parsed in chunk])

    def _answer_parsed(self, parsed: _Parsed) -> Outcome:
        try:
            prediction = self._predict(parsed.data, parsed.context)
        except Exception as error:  # noqa: BLE001 - the border of a request
            return error
        return self._attempt_output(prediction, parsed)

    def _attempt_output(self, prediction: Any, parsed: _Parsed) -> Outcome:
        try:
            return self._output(prediction, parsed.request, parsed.context)
        except Exception as error:  # noqa: BLE001 - the border of a request
            return error


def _handler_of(model: Any, recognised: Handler | None, environ: Mapping[str, str]) -> Handler:
    """Return the handler of a model's framework; the plain one when it is of none that we know."""
    for cls in type(model).__mro__:
        known = _HANDLERS.get(cls.__module__.partition(".")[0])
        if known is None:
            continue
        module_name, name = known
        kind: type[Handler] = getattr(importlib.import_module(module_name), name)
        return recognised if type(recognised) is kind else kind(environ)
    return Handler(environ)


def _check_can_predict(model: Any, function: UserFunction) -> None:
    if not callable(getattr(model, "predict", None)):
        raise ModelLoadError(
            f"{function.place}: model_fn returned a {_type_name(model)}, which has no predict(); "
            "write predict_fn(data, model)"
        )


def _text_where_text(body: Body, media: MediaType) -> str | Body:
    """Give user code str for JSON and CSV (SIT: transformer.py), the bytes for all else."""
    if media.name not in _TEXT_FOR_USERS:
        return bytes(body) if isinstance(body, memoryview) else body
    charset = media.parameters.get("charset", "utf-8")
    try:
        return str(body, charset)
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is 0x{body[error.start]:02x}"
        raise BadRequest(f"the body is not {charset}: {found}") from None
    except (LookupError, ValueError):
        raise UnsupportedMediaType(f"charset {charset!r} is not one that can be decoded") from None


def _body(value: Any, function: UserFunction) -> bytes | Iterator[bytes]:
    if isinstance(value, Iterator):
        parts = (_part(part, function) for part in value)
        # The first part is made now: a generator that fails at its start is an error, not half a 200.
        return chain([next(parts, b"")], parts)
    return _bytes(value, function, "returned")


def _part(value: Any, function: UserFunction) -> bytes:
    return _bytes(value, function, "yielded")


def _bytes(value: Any, function: UserFunction, verb: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise PredictionFailed(
        f"{function.place}: {function.name} {verb} a {_type_name(value)}; "
        "expected str, bytes, an array, a dict or list (JSON), an iterator of str or bytes, "
        "or a tuple of one of them and a content type"
    )


def _apply_context(response: Response, context: Context, keep_content_type: bool = False) -> None:
    """Take over what user code set through the context: status, headers, content type."""
    code, phrase = context.get_response_status(0)
    response.status, response.reason = code or 200, phrase or ""
    for name, value in context.get_response_headers(0).items():
        if name.lower() == "content-type":
            if not keep_content_type:
                response.content_type = value
        else:
            response.headers.append((name, value))


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
