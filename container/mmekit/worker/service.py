"""Runs an MMS handler, ``fn(data, context)``: what it is given, what it may return (MMS: mms/service.py).

A batch fails together, as in MMS; the server sends more than one request only when the model asked for
batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from mmekit.errors import BadRequest, MmekitError
from mmekit.worker import inputs
from mmekit.worker.context import Context, Request, RequestProcessor
from mmekit.worker.failures import HandlerRaised, is_success
from mmekit_handlers.base import Response

#: What people write; what comes back is checked.
EntryPoint: TypeAlias = Callable[[list[dict[str, Any]] | None, Context], Any]


class Service:
    """One model behind an MMS entry point.

    With ``decode`` JSON and text bodies are decoded for it (MMS: decode_input_request).
    """

    def __init__(self, entry_point: EntryPoint, context: Context, batches: bool, decode: bool) -> None:
        self._entry_point = entry_point
        self._context = context
        self._decode = decode
        self.batches = batches

    def __call__(self, requests: Sequence[Request], alone: bool = False) -> list[Response | Exception]:
        """Answer requests, in order; with ``alone`` each in a call of its own."""
        if self.batches and not alone:
            return self._answer_readable(requests)
        return [outcome for request in requests for outcome in self._answer_readable([request])]

    def _answer_readable(self, requests: Sequence[Request]) -> list[Response | Exception]:
        """Give the handler the requests that can be read; the others are their clients' mistakes."""
        found = [_attempt_read(request, self._decode) for request in requests]
        calls = [
            (request, each)
            for request, each in zip(requests, found, strict=True)
            if not isinstance(each, BadRequest)
        ]
        answers = iter(self._attempt(calls) if calls else ())
        return [each if isinstance(each, BadRequest) else next(answers) for each in found]

    def _attempt(self, calls: Sequence[tuple[Request, _Inputs]]) -> list[Response | Exception]:
        try:
            return [*self._answer(calls)]
        except Exception as error:  # noqa: BLE001 - the border of a call: its error is its answer
            if is_success(error):
                return [Response(b"error", None) for _ in calls]
            return [error] * len(calls)

    def _answer(self, calls: Sequence[tuple[Request, _Inputs]]) -> list[Response]:
        self._context.begin([request for request, _ in calls], [each.types for _, each in calls])
        try:
            returned = self._entry_point([each.data for _, each in calls], self._context)
            if isinstance(returned, Iterator) and len(calls) == 1:
                returned = [returned]
            bodies = [_body(element) for element in _elements(returned, len(calls))]
        except MmekitError:
            raise
        except Exception as error:
            raise HandlerRaised("Prediction failed") from error
        # After the bodies: a generator sets status and headers before its first part.
        processors = self._context.request_processor or []
        return [_response(body, processor) for body, processor in zip(bodies, processors, strict=True)]


class _Inputs(NamedTuple):
    """What a handler gets of one request, and the content type of each of its inputs."""

    data: dict[str, Any]
    types: dict[str, str]


def _attempt_read(request: Request, decode: bool) -> _Inputs | BadRequest:
    try:
        return _read(request, decode)
    except BadRequest as error:
        return error


def _read(request: Request, decode: bool) -> _Inputs:
    content_type = request.content_type
    if not decode and inputs.is_plain(request.query, content_type):
        return _Inputs({"body": _bytearray(request.body)}, {"body": inputs.media_type(content_type)})
    parts = [*inputs.parts_of(request.query, content_type, request.body)]
    return _Inputs(
        {part.name: inputs.value_of(part, decode) for part in parts},
        {part.name: part.content_type for part in parts},
    )


def _bytearray(body: bytes | bytearray | memoryview) -> bytearray:
    return body if isinstance(body, bytearray) else bytearray(body)


def _elements(returned: Any, expected: int) -> list[Any]:
    if not isinstance(returned, list):
        raise HandlerRaised(
            f"Invalid model predict output: the handler returned a {type(returned).__name__}; expected a "
            f"list with one element for each of the {expected} requests."
        )
    if len(returned) != expected:
        raise HandlerRaised(
            f"number of batch response mismatched: the handler returned {len(returned)} elements for "
            f"{expected} requests."
        )
    return returned


def _body(element: Any) -> bytes | Iterator[bytes]:
    if isinstance(element, Iterator):
        parts = (_part(part) for part in element)
        # The first part is made now: a generator that fails at its start is an error, not half a 200.
        return chain([next(parts, b"")], parts)
    if isinstance(element, bytes | bytearray | memoryview | str):
        return _part(element)
    try:
        return json.dumps(element, indent=2).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise HandlerRaised(f"Unsupported model output data type. {error}") from None


def _part(part: Any) -> bytes:
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, bytes | bytearray | memoryview):
        return bytes(part)
    raise HandlerRaised(
        f"Unsupported model output data type. The handler yielded a {type(part).__name__}; "
        "expected bytes or str."
    )


def _response(body: bytes | Iterator[bytes], processor: RequestProcessor) -> Response:
    response = Response(body, None, processor.get_response_status_code())
    response.reason = processor.get_response_status_phrase()
    for name, value in processor.get_response_headers().items():
        if name.lower() == "content-type":
            response.content_type = value
        else:
            response.headers.append((name, value))
    if response.status in (204, 205):  # RFC 9110, 15.3.5 and 15.3.6: no content
        response.body, response.content_type = b"", None
    return response
