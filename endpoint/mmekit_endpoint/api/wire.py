"""sagemaker-runtime on the wire: its errors as rest-json answers, and what its model says of requests.

Constraints are those of botocore's model sagemaker-runtime/2017-05-13. Clients check few of them: maximum
lengths and patterns are the service's work.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from botocore.loaders import create_loader
from botocore.model import ServiceModel, Shape

from mmekit.http.message import Response
from mmekit_endpoint.errors import EndpointError, ModelError, ValidationError

#: Characters of a value that an error repeats.
_SHOWN = 200

#: Of members that the model sets no limit: more than a head may have.
_UNLIMITED = 1 << 20

# --- errors


def runtime_error(error: EndpointError, request_id: str) -> Response:
    """Turn an error into the answer from which clients make the exception of its code."""
    body: dict[str, str | int] = {"Message": error.message}
    if isinstance(error, ModelError):
        # As seen in answers of the service: aws/sagemaker-tensorflow-serving-container#109.
        from_client = 400 <= error.original_status < 500
        body |= {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if from_client else "INTERNAL_FAILURE_FROM_MODEL",
            "LogStreamArn": error.log_stream_arn,
            "OriginalMessage": error.original_message,
            "OriginalStatusCode": error.original_status,
        }
    headers = [
        (b"Content-Type", b"application/json"),
        (b"x-amzn-ErrorType", error.code.encode()),
        (b"x-amzn-RequestId", request_id.encode()),
    ]
    return Response(error.status, headers, json.dumps(body).encode())


# --- requests


def check(operation: str, endpoint_name: str, headers: Mapping[bytes, bytes]) -> None:
    """Check what a request says, its body aside; ``headers`` are by their names in lower case.

    Raises
    ------
    ValidationError
        When values break constraints of the service's model; it names all of them.
    """
    name, members = _request(operation)
    uri = endpoint_name.encode()
    wrong = [] if name.accepts(uri) else [(name, uri)]
    for header, value in headers.items():
        member = members.get(header)
        if member is not None and not member.accepts(value):
            wrong.append((member, value))
    if wrong:
        errors = [error for member, value in wrong for error in member.errors(value)]
        noun = "error" if len(errors) == 1 else "errors"
        raise ValidationError(f"{len(errors)} validation {noun} detected: {'; '.join(errors)}")


class _Member:
    """A member of a request. ``accepts`` tests all its constraints in one call: true where all hold."""

    __slots__ = ("_limits", "_matches", "_path", "accepts")

    def __init__(self, name: str, shape: Shape) -> None:
        self._path = name[:1].lower() + name[1:]
        #: min, max and pattern; an integer has no pattern.
        self._limits = {"min": 0, "max": _UNLIMITED, **shape.metadata}
        if shape.type_name == "integer":
            self._matches: _Test = re.compile(rb"-?[0-9]{1,9}").fullmatch
            self.accepts: _Test = lambda value: not any(self._violations(value))
        else:
            pattern = _as_bytes(self._limits.setdefault("pattern", ".*"))
            lengths = b"(?=.{%d,%d}\\Z)" % (self._limits["min"], self._limits["max"])
            self._matches = re.compile(pattern, re.DOTALL).fullmatch
            self.accepts = re.compile(lengths + b"(?:" + pattern + b")", re.DOTALL).fullmatch

    def errors(self, value: bytes) -> list[str]:
        """Return what is wrong with a value, in AWS's words; values of sensitive members are not repeated."""
        shown = "" if self._limits.get("sensitive") else f" '{_cut(value.decode(errors='backslashreplace'))}'"
        return [
            f"Value{shown} at '{self._path}' failed to satisfy constraint: Member must {text}"
            for text in self._violations(value)
        ]

    def _violations(self, value: bytes) -> Iterator[str]:
        limits = self._limits
        pattern = limits.get("pattern")
        matches = self._matches(value)
        if pattern is None and not matches:
            yield "be an integer"
            return
        size, noun = (int(value), "value") if pattern is None else (len(value), "length")
        if size < limits["min"]:
            yield f"have {noun} greater than or equal to {limits['min']}"
        if size > limits["max"]:
            yield f"have {noun} less than or equal to {limits['max']}"
        if not matches:
            yield f"satisfy regular expression pattern: {pattern}"


_Test = Callable[[bytes], object]


@cache
def _request(operation: str) -> tuple[_Member, dict[bytes, _Member]]:
    """Return the endpoint's name and the headers of an operation's request."""
    model = _service()
    shape = model.operation_model(operation).input_shape
    members = {
        member.serialization["name"].lower().encode(): _Member(name, member)
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header" and member.type_name in ("string", "integer")
    }
    return _Member("EndpointName", shape.members["EndpointName"]), members


@cache
def _service() -> ServiceModel:
    return ServiceModel(create_loader().load_service_model("sagemaker-runtime", "service-2"))


#: Java's classes in the model's patterns, which mean ASCII, as `re` has them for bytes.
_CLASSES = {
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"[\p{Print}]": r"[\x20-\x7e]",
    r"\S": r"[\x21-\x7e]",
    r"\z": r"\Z",
}


def _as_bytes(pattern: str) -> bytes:
    for java, python in _CLASSES.items():
        pattern = pattern.replace(java, python)
    return pattern.encode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
