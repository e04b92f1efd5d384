"""InvokeEndpointAsync: the call is accepted at once, its answer becomes an object in S3.

AWS: "InvokeEndpointAsync" (API_runtime); "Asynchronous inference". Only for endpoints without target models
whose configuration has an AsyncInferenceConfig. What is accepted and not answered is lost with the service.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mmekit.http.exchange import Exchange
from mmekit_endpoint.api.runtime import Runtime, forwarded, refuse_multi_model, request_id
from mmekit_endpoint.api.wire import check, runtime_error
from mmekit_endpoint.errors import EndpointError, ModelError, ServiceUnavailable, ValidationError
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.connection import Answer
from mmekit_endpoint.fleet.endpoint import Endpoint
from mmekit_endpoint.fleet.sources import split_url

logger = logging.getLogger(__name__)

#: Defaults of botocore's model, in seconds.
_INVOCATION_TIMEOUT_S = 900
_REQUEST_TTL_S = 21_600

#: Body of the request where InputLocation is not given (botocore: AsyncBodyBlob).
_MAX_INLINE_BYTES = 128_000

#: Calls of one instance at the same time where the configuration does not say (AWS chooses; ours).
_MAX_CONCURRENT = 4

#: Accepted calls of one endpoint that wait (AWS keeps them in a queue of its own).
_MAX_WAITING = 1000

_PREFIX = b"x-amzn-sagemaker-"


class _Line:
    """The accepted calls of one endpoint: those that wait, and how many are with the container."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.running = 0


class AsyncRuntime:
    """Accepts calls and works them off, oldest first, in tasks of the event loop."""

    def __init__(self, runtime: Runtime, client: Callable[[], Any]) -> None:
        self._runtime = runtime
        self._client = client
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Not the loop's own threads: a store that hangs would hold up the rest of the service.
        self._threads = ThreadPoolExecutor(4, "async")

    def invoke(self, exchange: Exchange, name: str) -> None:
        """Answer InvokeEndpointAsync."""
        headers = exchange.request.first
        try:
            check("InvokeEndpointAsync", name, headers)
            endpoint = self._runtime.endpoint(name)
            order = self._order(endpoint, headers, bytes(exchange.request.body))
            line = self._lines.setdefault(name, _Line())
            if len(line.waiting) >= _MAX_WAITING:
                raise ServiceUnavailable(
                    f"{_MAX_WAITING} asynchronous calls of endpoint {name} wait already. Call again later."
                )
        except EndpointError as error:
            exchange.respond(runtime_error(error, request_id()))
            return
        task = asyncio.get_running_loop().create_task(self._work(line, name, order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        answer = [
            (b"Content-Type", b"application/json"),
            (b"X-Amzn-SageMaker-OutputLocation", order.output.encode()),
            (b"x-amzn-RequestId", request_id().encode()),
        ]
        if order.failure:
            answer.append((b"X-Amzn-SageMaker-FailureLocation", order.failure.encode()))
        exchange.answer(202, answer, json.dumps({"InferenceId": order.inference_id}).encode())

    async def stop(self) -> None:
        """End what is worked on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _order(self, endpoint: Endpoint, headers: Mapping[bytes, bytes], body: bytes) -> _Order:
        refuse_multi_model(endpoint, "InvokeEndpointAsync")
        spec = endpoint.spec.asynchronous
        if spec is None:
            raise ValidationError(
                f"Endpoint {endpoint.name} takes no asynchronous calls: its configuration has no "
                "AsyncInferenceConfig."
            )
        try:
            location = headers.get(_PREFIX + b"inputlocation", b"").decode()
        except UnicodeDecodeError:  # its pattern takes any bytes
            raise ValidationError("InputLocation is not UTF-8, which names of S3 objects are.") from None
        if location and body:
            raise ValidationError("InputLocation and Body exclude each other: give one of them.")
        if not location and not body:
            raise ValidationError("InputLocation is missing: give it, or a Body of at most 128000 bytes.")
        if len(body) > _MAX_INLINE_BYTES:
            raise ValidationError(
                f"The body has {len(body)} bytes: expected at most {_MAX_INLINE_BYTES}; put a larger one "
                "into S3 and give InputLocation."
            )
        if location:
            _bucket_and_key(location)
        name = headers.get(_PREFIX + b"filename", b"").decode() or str(uuid.uuid4())
        extension = headers.get(_PREFIX + b"s3outputpathextension", b"").decode().strip("/")
        output = spec.output_url.rstrip("/") + (f"/{extension}" if extension else "")
        lines = {}
        for member, header in ((b"content-type", b"content-type"), (b"accept", b"accept")):
            if (value := headers.get(_PREFIX + member)) is not None:
                lines[header] = value
        for header in (_PREFIX + b"custom-attributes", _PREFIX + b"inference-id"):
            if header in headers:
                lines[header] = headers[header]
        return _Order(
            inference_id=headers.get(_PREFIX + b"inference-id", b"").decode() or str(uuid.uuid4()),
            location=location,
            body=body,
            lines=forwarded(lines),
            output=f"{output}/{name}.out",
            failure=f"{spec.failure_url.rstrip('/')}/{name}-error.out" if spec.failure_url else "",
            timeout_s=_number(headers, b"invocationtimeoutseconds", _INVOCATION_TIMEOUT_S),
            ttl_s=_number(headers, b"requestttlseconds", _REQUEST_TTL_S),
        )

    async def _work(self, line: _Line, name: str, order: _Order) -> None:
        try:
            if not await self._turn(line, name, order.ttl_s):
                text = f"The request was not begun within {order.ttl_s} s."
                await self._put(order.failure, text.encode(), "text/plain")
                return
            try:
                outcome = await self._call(name, order)
            finally:
                line.running -= 1
                self._next(line, name)
        except Exception as error:  # noqa: BLE001 - the border of a task: the failure becomes an object
            logger.warning("The asynchronous call %s failed: %s", order.inference_id, error)
            await self._put(order.failure, str(error).encode(), "text/plain")
            return
        content_type = outcome.headers.get(b"content-type", b"").decode("latin-1")
        await self._put(order.output, outcome.body, content_type)

    async def _turn(self, line: _Line, name: str, ttl_s: float) -> bool:
        """Wait until a call may begin, for at most ``ttl_s``; return whether it may."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        self._next(line, name)
        try:
            await asyncio.wait_for(turn, ttl_s)
        except asyncio.TimeoutError:
            line.waiting.remove(turn)
            return False
        return True

    def _next(self, line: _Line, name: str) -> None:
        """Let calls begin, as many as the endpoint takes now."""
        while line.waiting and line.running < self._limit(name):
            turn = line.waiting.popleft()
            if not turn.done():
                line.running += 1
                turn.set_result(None)

    def _limit(self, name: str) -> int:
        """Return how many calls an endpoint has at a time: its numbers may have been changed since."""
        try:
            endpoint = self._runtime.endpoint(name)
        except EndpointError:
            return _MAX_WAITING  # it is gone: each call learns that by itself
        spec = endpoint.spec.asynchronous
        most = (spec.max_concurrent_per_instance if spec else None) or _MAX_CONCURRENT
        return most * max(1, sum(variant.desired_count for variant in endpoint.variants))

    async def _call(self, name: str, order: _Order) -> Answer:
        body = order.body
        loop = asyncio.get_running_loop()
        if order.location:
            body = await loop.run_in_executor(self._threads, self._get, order.location)
        answered: asyncio.Future[Answer] = loop.create_future()

        def finished(_: Call, outcome: Answer | EndpointError) -> None:
            if answered.done():
                return
            if isinstance(outcome, EndpointError):
                answered.set_exception(_as_exception(outcome))
            else:
                answered.set_result(outcome)

        now = time.monotonic()
        endpoint = self._runtime.endpoint(name)  # an update may have put another in its place
        endpoint.invoke(Call(None, order.lines, body, now, now + order.timeout_s, finished), None)
        return await answered

    def _get(self, location: str) -> bytes:
        bucket, key = _bucket_and_key(location)
        body: bytes = self._client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    async def _put(self, location: str, body: bytes, content_type: str) -> None:
        if not location:
            return
        bucket, key = _bucket_and_key(location)
        more = {"ContentType": content_type} if content_type else {}

        def put() -> None:
            self._client().put_object(Bucket=bucket, Key=key, Body=body, **more)

        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, put)
        except Exception as error:  # noqa: BLE001 - nobody waits who could be told
            logger.error("An asynchronous answer could not be written to %s: %s", location, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One accepted call: ``output`` and ``failure`` are urls, the latter "" where failures go nowhere."""

    inference_id: str
    #: Url of the input, or "" where ``body`` is it.
    location: str
    body: bytes
    lines: bytes
    output: str
    failure: str
    timeout_s: int
    ttl_s: int


def _as_exception(error: EndpointError) -> Exception:
    if isinstance(error, ModelError):
        return RuntimeError(error.original_message or error.message)
    return error


def _bucket_and_key(location: str) -> tuple[str, str]:
    place = split_url(location)
    if not isinstance(place, tuple) or not place[1]:
        raise ValidationError(f"{location!r} names no S3 object: expected s3://BUCKET/KEY.")
    return place


def _number(headers: Mapping[bytes, bytes], name: bytes, default: int) -> int:
    text = headers.get(_PREFIX + name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ValidationError(f"{name.decode()} is not a whole number: {text!r}.") from None
