"""Which of AWS's services a request is for, and in which form that service answers errors.

All services have the same URL here, so that it cannot tell: the operation's header and the signature do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import msgspec

#: WSGI's environ: header fields, CGI's variables, streams.
Environ = dict[str, Any]

#: Prefix of X-Amz-Target → service, as signatures name it.
_TARGETS = {
    "SageMaker": "sagemaker",
    "GraniteServiceVersion20100801": "monitoring",
    "Logs_20140328": "logs",
    "AmazonEC2ContainerRegistry_V20150921": "ecr",
    "AnyScaleFrontendService": "application-autoscaling",
}

#: Services that are neither JSON nor CBOR nor forms.
_REST_XML = {"s3", "cloudfront", "route53"}

#: AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/s3/aws4_request
_CREDENTIAL = re.compile(r"Credential=[^,]*/\d{8}/([^/,]+)/([^/,]+)/aws4_request")
_PRESIGNED = re.compile(r"[^,]*/\d{8}/([^/,]+)/([^/,]+)/aws4_request")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request is for."""

    #: As signatures name it: sagemaker, s3, monitoring.
    service: str
    #: Of its signature; None where it is not signed.
    region: str | None
    #: The operation, where a header names it.
    operation: str = ""


def scope_of(environ: Environ) -> Scope:
    """Return what a request is for. Unsigned requests without a target are S3's, as plain downloads are."""
    prefix, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
    match = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if match is None:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        match = _PRESIGNED.fullmatch(query.get("X-Amz-Credential", [""])[0])
    region, signed = match.groups() if match else (None, None)
    service = _TARGETS.get(prefix) or signed or prefix.lower() or "s3"
    return Scope(service, region, operation)


def json_error(code: str, message: str) -> bytes:
    """Return an error as JSON services write it."""
    return msgspec.json.encode({"__type": code, "message": message})


def error_answer(scope: Scope, environ: Environ, code: str, message: str) -> tuple[str, bytes]:
    """Return the content type and the body of an error, in the form that the service's clients read."""
    content_type = environ.get("CONTENT_TYPE", "")
    if environ.get("HTTP_SMITHY_PROTOCOL") == "rpc-v2-cbor":
        return "application/cbor", _cbor({"__type": code, "message": message})
    if scope.service == "ec2":
        error = f"<Errors><Error>{_xml(code, message)}</Error></Errors>"
        return "text/xml", f"<Response>{error}</Response>".encode()
    if scope.service in _REST_XML:
        return "application/xml", f"<Error>{_xml(code, message)}</Error>".encode()
    if content_type.startswith("application/x-www-form-urlencoded"):
        error = f"<Error><Type>Sender</Type>{_xml(code, message)}</Error>"
        return "text/xml", f"<ErrorResponse>{error}</ErrorResponse>".encode()
    return "application/x-amz-json-1.1", json_error(code, message)


def _xml(code: str, message: str) -> str:
    return f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"


def _cbor(members: dict[str, str]) -> bytes:
    """Return a map of texts as CBOR (RFC 8949, 3: major types 5 and 3)."""
    parts = [bytes([0xA0 | len(members)])]
    for text in (text for member in members.items() for text in member):
        data = text.encode()
        parts.append(b"\x79" + len(data).to_bytes(2, "big") + data)
    return b"".join(parts)
