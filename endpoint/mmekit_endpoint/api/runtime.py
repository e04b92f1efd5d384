"""sagemaker-runtime: InvokeEndpoint and InvokeEndpointWithResponseStream, from a request to a call and back.

AWS: "InvokeEndpoint" and "InvokeEndpointWithResponseStream" (API_runtime); bindings are botocore's model
sagemaker-runtime/2017-05-13.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Mapping
from urllib.parse import unquote

from mmekit.http.exchange import Exchange
from mmekit_endpoint.api import eventstream
from mmekit_endpoint.api.wire import check, runtime_error
from mmekit_endpoint.database import ACCOUNT
from mmekit_endpoint.errors import EndpointError, ValidationError
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.connection import Answer
from mmekit_endpoint.fleet.endpoint import Endpoint
from mmekit_endpoint.fleet.reconciler import Reconciler
from mmekit_endpoint.fleet.sources import check_target
from mmekit_endpoint.settings import Settings

_TARGET_MODEL = b"x-amzn-sagemaker-target-model"
_TARGET_VARIANT = b"x-amzn-sagemaker-target-variant"
_TARGET_HOSTNAME = b"x-amzn-sagemaker-target-container-hostname"
_INVOKED_VARIANT = b"x-Amzn-Invoked-Production-Variant"
_REQUEST_ID = b"x-amzn-RequestId"

#: What goes to the container; its target header is the model's own. AWS strips what it does not know.
_FORWARDED = (
    b"content-type",
    b"accept",
    b"x-amzn-sagemaker-custom-attributes",
    b"x-amzn-sagemaker-inference-id",
    b"x-amzn-sagemaker-session-id",
)

#: What comes back from the container, and how clients spell it.
_RETURNED = (
    (b"content-type", b"Content-Type"),
    (b"x-amzn-sagemaker-custom-attributes", b"X-Amzn-SageMaker-Custom-Attributes"),
    (b"x-amzn-sagemaker-new-session-id", b"X-Amzn-SageMaker-New-Session-Id"),
    (b"x-amzn-sagemaker-closed-session-id", b"X-Amzn-SageMaker-Closed-Session-Id"),
)

#: Members of InvokeEndpoint whose features are not here: to ignore them would give another answer than AWS.
_REFUSED = (
    (b"x-amzn-sagemaker-enable-explanations", "EnableExplanations"),
    (b"x-amzn-sagemaker-inference-component", "InferenceComponentName"),
    (b"x-amzn-sagemaker-prefix-aware-id", "PrefixAwareId"),
)

_new_ids = itertools.count(int.from_bytes(os.urandom(6), "big"))


def request_id() -> str:
    """Return an id in the form of a UUID; one system call fewer than uuid4, and as good for logs."""
    number = next(_new_ids)
    return f"{number >> 16 & 0xFFFFFFFF:08x}-{number & 0xFFFF:04x}-4000-8000-{number:012x}"


class Runtime:
    """Answers invocations of the endpoints that a reconciler runs."""

    def __init__(self, settings: Settings, reconciler: Reconciler) -> None:
        self._settings = settings
        self._reconciler = reconciler

    def invoke(self, exchange: Exchange, name: str) -> None:
        """Answer InvokeEndpoint."""
        request = exchange.request
        headers = request.first
        variant_name = headers.get(_TARGET_VARIANT)
        try:
            check("InvokeEndpoint", name, headers)
            endpoint = self.endpoint(name)
            self._check_size(request.body)
            target = _target(endpoint, headers)
            now = time.monotonic()
            call = Call(
                target,
                forwarded(headers),
                request.body,
                now,
                now + self._settings.invoke_timeout_s,
                _Reply(exchange).finish,
            )
            exchange.on_close = call.leave
            endpoint.invoke(call, None if variant_name is None else variant_name.decode())
        except EndpointError as error:
            exchange.respond(runtime_error(error, request_id()))

    def stream(self, exchange: Exchange, name: str) -> None:
        """Answer InvokeEndpointWithResponseStream."""
        request = exchange.request
        headers = dict(request.first)
        accept = headers.pop(b"x-amzn-sagemaker-accept", None)
        if accept is not None:
            headers[b"accept"] = accept
        variant_name = headers.get(_TARGET_VARIANT)
        try:
            check("InvokeEndpointWithResponseStream", name, request.first)
            endpoint = self.endpoint(name)
            self._check_size(request.body)
            refuse_multi_model(endpoint, "InvokeEndpointWithResponseStream")
            _target(endpoint, headers)
            now = time.monotonic()
            stream = _Stream(exchange)
            call = Call(
                None,
                forwarded(headers),
                request.body,
                now,
                now + self._settings.stream_timeout_s,
                stream.finish,
                stream.begin,
                stream.part,
            )
            stream.call = call
            endpoint.invoke(call, None if variant_name is None else variant_name.decode())
        except EndpointError as error:
            exchange.respond(runtime_error(error, request_id()))

    def endpoint(self, name: str) -> Endpoint:
        """Return the endpoint of that name that takes calls. Raises ValidationError."""
        endpoint = self._reconciler.endpoints.get(name)
        if endpoint is not None:
            return endpoint
        row = self._reconciler.row(unquote(name))
        if row is None:
            raise ValidationError(f"Endpoint {name} of account {ACCOUNT} not found.")
        raise ValidationError(
            f"Endpoint {name} of account {ACCOUNT} takes no calls: its status is {row.status}."
            + (f" {row.failure_reason}" if row.failure_reason else "")
        )

    def _check_size(self, body: bytes | bytearray) -> None:
        limit = self._settings.max_payload_bytes
        if len(body) > limit:
            raise ValidationError(f"The body has {len(body)} bytes: expected at most {limit}.")


def _target(endpoint: Endpoint, headers: Mapping[bytes, bytes]) -> str | None:
    """Return the target model of a call. Raises ValidationError for what does not fit the endpoint."""
    if _TARGET_HOSTNAME in headers:
        raise ValidationError(
            f"TargetContainerHostname was given, but endpoint {endpoint.name} has one container a model. "
            "Leave it out."
        )
    for name, member in _REFUSED:
        if name in headers:
            raise ValidationError(f"{member} is not supported by the local endpoint. Leave it out.")
    raw = headers.get(_TARGET_MODEL)
    if not endpoint.multi_model:
        if raw is not None:
            raise ValidationError(
                f"TargetModel was given, but endpoint {endpoint.name} is not a multi-model endpoint. Leave "
                "it out, or create its model with Mode=MultiModel. (TARGET_MODEL_HEADER_NOT_SUPPORTED)"
            )
        return None
    if raw is None:
        raise ValidationError(
            f"The target model header {_TARGET_MODEL.decode()} is missing: endpoint {endpoint.name} is a "
            "multi-model endpoint. Give TargetModel, the archive's path below the model's prefix."
        )
    return _checked(raw)


@functools.lru_cache(4096)
def _checked(raw: bytes) -> str:
    """Return the target model that a header names: printable ASCII, `check` has seen to that."""
    target = raw.decode()
    check_target(target)
    return target


def refuse_multi_model(endpoint: Endpoint, operation: str) -> None:
    """Raise ValidationError for operations that have no TargetModel (botocore: sagemaker-runtime)."""
    if endpoint.multi_model:
        raise ValidationError(
            f"{operation} is not for multi-model endpoints, and {endpoint.name} is one: they have no "
            "TargetModel. Use InvokeEndpoint."
        )


def forwarded(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the header lines of a call that its container gets."""
    lines = b""
    for name in _FORWARDED:
        value = headers.get(name)
        if value is not None:
            lines += b"%b: %b\r\n" % (name, value)
    return lines


def _returned(answer: Answer, variant: str) -> list[tuple[bytes, bytes]]:
    headers = answer.headers
    found = [(spelled, headers[name]) for name, spelled in _RETURNED if name in headers]
    return [*found, (_INVOKED_VARIANT, variant.encode()), (_REQUEST_ID, request_id().encode())]


class _Reply:
    """Answers InvokeEndpoint with what came of its call."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def finish(self, call: Call, outcome: Answer | EndpointError) -> None:
        exchange = self._exchange
        if exchange.closed:
            return
        if isinstance(outcome, EndpointError):
            exchange.respond(runtime_error(outcome, request_id()))
            return
        try:
            exchange.answer(200, _returned(outcome, call.variant), outcome.body)
        except ValueError as error:  # a header of the container that cannot be one of ours
            exchange.respond(
                runtime_error(
                    ValidationError(f"The container's answer cannot be passed on: {error}"), request_id()
                )
            )


class _Stream:
    """Answers InvokeEndpointWithResponseStream: parts as events, as they come."""

    def __init__(self, exchange: Exchange) -> None:
        self.call: Call | None = None
        self._exchange = exchange
        self._begun = False
        exchange.on_drain = self._resume
        exchange.on_close = self._leave

    def begin(self, answer: Answer) -> None:
        variant = self.call.variant if self.call is not None else ""
        kept = [(name, value) for name, value in _returned(answer, variant) if name != b"Content-Type"]
        mime = answer.headers.get(b"content-type", b"application/octet-stream")
        self._begun = True
        self._exchange.start(
            200,
            [
                (b"Content-Type", b"application/vnd.amazon.eventstream"),
                (b"X-Amzn-SageMaker-Content-Type", mime),
                *kept,
            ],
        )

    def part(self, data: bytes) -> None:
        if data and not self._exchange.write(eventstream.payload_part(data)) and self.call is not None:
            request = self.call.request
            if request is not None:
                request.pause()

    def _resume(self) -> None:
        request = self.call.request if self.call is not None else None
        if request is not None:
            request.resume()

    def _leave(self) -> None:
        if self.call is not None:
            self.call.deadline = 0.0  # nobody waits: the next tick ends it

    def finish(self, call: Call, outcome: Answer | EndpointError) -> None:
        exchange = self._exchange
        if not exchange.closed and not self._begun and not isinstance(outcome, EndpointError):
            self.begin(outcome)
        if exchange.closed:
            return
        if not isinstance(outcome, EndpointError):
            exchange.end()
        elif self._begun:
            exchange.write(eventstream.exception("ModelStreamError", outcome.message, "StreamBroken"))
            exchange.end()
        else:
            exchange.respond(runtime_error(outcome, request_id()))
