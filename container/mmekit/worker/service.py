"""Runs an MMS handler, ``fn(data, context)``: what it is given, what it may return (MMS: mms/service.py).

A batch fails together, as in MMS; the server sends more than one request only when the model asked for
batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

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
        calls: list[_Call] = []
        mistakes: list[tuple[int, BadRequest]] = []
        for index, request in enumerate(requests):
            try:
                calls.append(_read(request, self._decode))
            except BadRequest as error:
                mistakes.append((index, error))
        answers = self._attempt(calls) if calls else []
        for index, mistake in mistakes:
            answers.insert(index, mistake)
        return answers

    def _attempt(self, calls: Sequence[_Call]) -> list[Response | Exception]:
        try:
            return self._answer(calls)
        except Exception as error:  # noqa: BLE001 - the border of a call: its error is its answer
            if is_success(error):
                return [Response(b"error", None) for _ in calls]
            return [error] * len(calls)

    def _answer(self, calls: Sequence[_Call]) -> list[Response | Exception]:
        context = self._context
        requests, data, types = zip(*calls, strict=True)
        context.begin(requests, types)
        try:
            returned = self._entry_point([*data], context)
            if isinstance(returned, Iterator) and len(calls) == 1:
                returned = [returned]
            bodies = [_body(element) for element in _elements(returned, len(calls))]
            # After the bodies: a generator sets status and headers before its first part.
            if not context.is_answer_set:
                return [Response(body, None) for body in bodies]
            processors = context.request_processor or []
            if len(processors) != len(bodies):
                raise HandlerRaised(
                    f"The handler put {len(processors)} processors in context.request_processor; expected "
                    f"one for each of the {len(bodies)} requests."
                )
            return [_response(body, processor) for body, processor in zip(bodies, processors, strict=True)]
        except MmekitError:
            raise
        except Exception as error:
            raise HandlerRaised("Prediction failed") from error


#: Made once: a union in a call is made anew each time.
_BYTES_OR_STR = (bytes, bytearray, memoryview, str)

#: A request, what the handler gets of it, and the content type of each of its inputs.
_Call: TypeAlias = tuple[Request, dict[str, Any], dict[str, str]]


def _read(request: Request, decode: bool) -> _Call:
    content_type = request.content_type
    if not (decode or request.query):
        media = inputs.media_type(content_type)
        if not inputs.has_parts(media):
            return request, {"body": _bytearray(request.body)}, {"body": media}
    parts = [*inputs.parts_of(request.query, content_type, request.body)]
    return (
        request,
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
    if isinstance(element, _BYTES_OR_STR):
        return _part(element)
    try:
        return json.dumps(element, indent=2).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise HandlerRaised(f"Unsupported model output data type. {error}") from None


def _part(part: Any) -> bytes:
    if type(part) is bytes:
        return part
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
