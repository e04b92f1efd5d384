"""Runs an MMS handler, ``fn(data, context)``: what it is given, what it may return (MMS: mms/service.py).

A batch fails together, as in MMS; the server sends more than one request only when the model asked for
batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

from mmekit.errors import MmekitError
from mmekit.worker.context import Context, Request, RequestProcessor
from mmekit.worker.failures import HandlerRaised
from mmekit_handlers.base import Response

#: What people write; what comes back is checked.
EntryPoint: TypeAlias = Callable[[list[dict[str, Any]] | None, Context], Any]


class Service:
    """One model behind an MMS entry point."""

    def __init__(self, entry_point: EntryPoint, context: Context, batches: bool) -> None:
        self._entry_point = entry_point
        self._context = context
        self.batches = batches

    def __call__(self, requests: Sequence[Request], alone: bool = False) -> list[Response | Exception]:
        """Answer requests, in order; with ``alone`` each in a call of its own."""
        if self.batches and not alone:
            return self._attempt(requests)
        return [outcome for request in requests for outcome in self._attempt([request])]

    def _attempt(self, requests: Sequence[Request]) -> list[Response | Exception]:
        try:
            return [*self._answer(requests)]
        except Exception as error:  # noqa: BLE001 - the border of a call: its error is its answer
            return [error] * len(requests)

    def _answer(self, requests: Sequence[Request]) -> list[Response]:
        self._context.begin(requests)
        # SageMaker's configurations all set decode_input_request=false: bodies come as they are.
        data = [{"body": _bytearray(request.body)} for request in requests]
        try:
            returned = self._entry_point(data, self._context)
            if isinstance(returned, Iterator) and len(requests) == 1:
                returned = [returned]
            bodies = [_body(element) for element in _elements(returned, len(requests))]
        except MmekitError:
            raise
        except Exception as error:
            raise HandlerRaised("Prediction failed") from error
        # After the bodies: a generator sets status and headers before its first part.
        processors = self._context.request_processor or []
        return [_response(body, processor) for body, processor in zip(bodies, processors, strict=True)]


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
    if response.status == 204:  # RFC 9110, 15.3.5: no content
        response.body, response.content_type = b"", None
    return response
