"""Signatures of requests: AWS's Signature Version 4, in the Authorization header or in the query.

botocore's signer makes the signature again from the request as it arrived, with the secret of its key: from
method, path, query and signed headers, and the body where its hash is signed. Chunks of S3's ``STREAMING-…``
bodies are not verified one by one, and session tokens are not known here.

AWS: "Authenticating Requests (AWS Signature Version 4)" (Amazon S3 API Reference) and "Create a signed AWS
API request" (IAM User Guide).
"""

from __future__ import annotations

import hmac
import json
import re
import time
from calendar import timegm
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import IntEnum
from hashlib import sha256
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

from botocore.auth import SIGV4_TIMESTAMP, UNSIGNED_PAYLOAD, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from botocore.utils import normalize_url_path

from mmekit.http.message import Request, Response
from mmekit_endpoint.errors import EndpointError

#: How far a request's time may be from this machine's, in seconds. AWS's "Common Errors" and S3 say 15
#: minutes; JSON services were seen to allow 5.
MAX_SKEW_S = 15 * 60

#: A presigned URL is good for a week at most (S3: "Authenticating Requests: Using Query Parameters").
_MAX_EXPIRES_S = 7 * 24 * 3600

_ALGORITHM = "AWS4-HMAC-SHA256"
_FIELD = re.compile(r"(Credential|SignedHeaders|Signature)=([^\s,]+)")
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_REGION = re.compile(rb"Credential=[^\s,&]{1,128}?(?i:/|%2F)[0-9]{8}(?i:/|%2F)([a-z0-9-]{1,32})(?i:/|%2F)")

#: Headers with a meaning to the services, which others could add or change if they were not signed.
_MEANT = (b"x-amz-", b"x-amzn-sagemaker-")

_CONTENT_HASH = b"x-amz-content-sha256"


class Refused(EndpointError):
    """Raised when a request is not signed, or not as its key's owner would have signed it at this time."""

    status = 403

    def __init__(self, request: Request, reason: _Reason, message: str) -> None:
        super().__init__(message)
        self.code = reason[_protocol(request)]


class Verifier:
    """Verifies signatures with the secrets of ``keys``, by access key id; ``clock`` is the epoch's."""

    def __init__(self, keys: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock

    def verify(self, request: Request) -> None:
        """Return for a request that the owner of a known key has signed.

        Raises
        ------
        Refused
            For any other, with the code that its client expects.
        """
        claim = _claim(request)
        secret = self._keys.get(claim.key_id)
        if secret is None:
            raise Refused(
                request,
                _UNKNOWN_KEY,
                f"The security token included in the request is invalid: no key is {claim.key_id[:128]!r}.",
            )
        self._check_time(request, claim)
        _check_coverage(request, claim)
        if not hmac.compare_digest(_signature(request, claim, secret).encode(), claim.signature.encode()):
            raise Refused(
                request,
                _MISMATCH,
                "The request signature we calculated does not match the signature you provided. Check your "
                "AWS Secret Access Key and signing method.",
            )

    def _check_time(self, request: Request, claim: _Claim) -> None:
        now, latest = self._clock(), claim.signed_at + (claim.expires_s or MAX_SKEW_S)
        if claim.signed_at > now + MAX_SKEW_S:
            raise Refused(
                request,
                _SKEWED,
                f"Signature not yet current: {claim.timestamp} is still later than "
                f"{_stamp(now + MAX_SKEW_S)} ({_stamp(now)} + {MAX_SKEW_S // 60} min.)",
            )
        if now > latest and claim.expires_s is not None:
            raise Refused(request, _EXPIRED, f"Request has expired: it was good until {_stamp(latest)}.")
        if now > latest:
            raise Refused(
                request,
                _SKEWED,
                f"Signature expired: {claim.timestamp} is now earlier than {_stamp(now - MAX_SKEW_S)} "
                f"({_stamp(now)} - {MAX_SKEW_S // 60} min.)",
            )


def region_of(request: Request) -> str | None:
    """Return the region that a request says it is signed for, verified or not; None for one without."""
    signed = request.first.get(b"authorization") or request.query.encode()
    match = _REGION.search(signed)
    return match[1].decode() if match else None


def refusal(request: Request, error: EndpointError, request_id: str) -> Response:
    """Turn an error of ``verify`` into an answer of the protocol that the request's client speaks."""
    protocol = _protocol(request)
    if protocol is _Protocol.JSON:
        kind = b"application/json"
        body = json.dumps({"__type": error.code, "message": error.message})
    else:
        kind = b"application/xml"
        text = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        number = f"<RequestId>{request_id}</RequestId>"
        if protocol is _Protocol.QUERY:
            body = f"<ErrorResponse><Error><Type>Sender</Type>{text}</Error>{number}</ErrorResponse>"
        else:
            body = f"<Error>{text}{number}</Error>"
    headers = [
        (b"Content-Type", kind),
        (b"x-amzn-ErrorType", error.code.encode()),
        (b"x-amzn-RequestId", request_id.encode()),
    ]
    return Response(error.status, headers, body.encode())


# --- codes, by protocol


class _Protocol(IntEnum):
    """How a request's client reads errors."""

    JSON, QUERY, S3 = range(3)


def _protocol(request: Request) -> _Protocol:
    if request.path.startswith("/endpoints/") or b"x-amz-target" in request.first:
        return _Protocol.JSON
    if request.first.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
        return _Protocol.QUERY
    return _Protocol.S3


#: The code of each protocol.
_Reason = tuple[str, str, str]

_UNSIGNED: _Reason = ("MissingAuthenticationTokenException", "MissingAuthenticationToken", "AccessDenied")
_INCOMPLETE: _Reason = ("IncompleteSignatureException", "IncompleteSignature", "AuthorizationHeaderMalformed")
_UNKNOWN_KEY: _Reason = ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId")
_MISMATCH: _Reason = ("InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch")
_BODY: _Reason = ("InvalidSignatureException", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch")
_SKEWED: _Reason = ("InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed")
_EXPIRED: _Reason = ("InvalidSignatureException", "RequestExpired", "AccessDenied")


# --- what a request claims


@dataclass(frozen=True, slots=True)
class _Claim:
    """By whom, when and over which headers a request says that it is signed."""

    key_id: str
    region: str
    service: str
    signed_headers: frozenset[str]
    signature: str
    #: As in the request, and in seconds since the epoch.
    timestamp: str
    signed_at: float
    #: Of a presigned URL; None for the Authorization header.
    expires_s: int | None

    @property
    def is_s3(self) -> bool:
        """Whether S3's rules hold: paths as they are, and bodies that need not be signed."""
        return self.service in ("s3", "s3-object-lambda", "s3-outposts", "s3express")


def _claim(request: Request) -> _Claim:
    authorization = _text(request.first.get(b"authorization", b""))
    query = dict(_parameters(request))
    expires = None
    if authorization:
        algorithm, _, rest = authorization.partition(" ")
        fields = dict(_FIELD.findall(rest))
        timestamp = _header_timestamp(request)
    elif "X-Amz-Algorithm" in query:
        algorithm = query["X-Amz-Algorithm"]
        fields = {name.removeprefix("X-Amz-"): value for name, value in query.items()}
        timestamp, expires = fields.get("Date", ""), fields.get("Expires", "")
    else:
        raise Refused(request, _UNSIGNED, "Missing Authentication Token: the request is not signed.")
    if algorithm != _ALGORITHM:
        raise Refused(request, _INCOMPLETE, f"Only {_ALGORITHM} is supported, not {algorithm[:64]!r}.")
    try:
        return _read_claim(fields, timestamp, expires)
    except (KeyError, ValueError) as error:
        raise Refused(
            request,
            _INCOMPLETE,
            f"The signature is incomplete, see {error}: expected Credential=ID/DATE/REGION/SERVICE/"
            "aws4_request, SignedHeaders, Signature, and a time of that date as 20261127T120000Z.",
        ) from None


def _read_claim(fields: Mapping[str, str], timestamp: str, expires: str | None) -> _Claim:
    scope = fields["Credential"].rsplit("/", 4)
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise ValueError(f"Credential={fields['Credential'][:200]!r}")
    if not _TIMESTAMP.fullmatch(timestamp) or timestamp[:8] != scope[1]:
        raise ValueError(f"the time {timestamp[:32]!r} with the date {scope[1][:32]!r}")
    if expires is not None and not 0 < int(expires) <= _MAX_EXPIRES_S:
        raise ValueError(f"X-Amz-Expires={expires[:32]!r}, which is not from 1 to {_MAX_EXPIRES_S} s")
    return _Claim(
        key_id=scope[0],
        region=scope[2],
        service=scope[3],
        signed_headers=frozenset(fields["SignedHeaders"].lower().split(";")),
        signature=fields["Signature"],
        timestamp=timestamp,
        signed_at=timegm(time.strptime(timestamp, SIGV4_TIMESTAMP)),
        expires_s=None if expires is None else int(expires),
    )


def _header_timestamp(request: Request) -> str:
    text = _text(request.first.get(b"x-amz-date") or request.first.get(b"date", b""))
    parsed = None if _TIMESTAMP.fullmatch(text) else parsedate_tz(text)
    try:
        return text if parsed is None else _stamp(mktime_tz(parsed))
    except (OverflowError, ValueError):
        return text  # as "Mon, 99 Xyz 99999", which is refused


# --- what the key's owner would have signed


def _check_coverage(request: Request, claim: _Claim) -> None:
    """Refuse a request whose host, or a header with a meaning, is not signed."""
    for name in request.first:
        meant = name == b"host" or (name.startswith(_MEANT) and name != _CONTENT_HASH)
        if meant and _text(name) not in claim.signed_headers:
            raise Refused(
                request, _MISMATCH, f"The header {_text(name)} must be among those that are signed."
            )


def _payload_hash(request: Request, claim: _Claim) -> str:
    """Return what stands for the body in the signature. Raises Refused where that is not the body's hash."""
    presigned = claim.expires_s is not None
    said = _text(request.first.get(_CONTENT_HASH, b""))
    if not said or (presigned and _text(_CONTENT_HASH) not in claim.signed_headers):
        return UNSIGNED_PAYLOAD if presigned and claim.is_s3 else sha256(request.body).hexdigest()
    if claim.is_s3 and (said == UNSIGNED_PAYLOAD or said.startswith("STREAMING-")):
        return said
    if said != sha256(request.body).hexdigest():
        raise Refused(request, _BODY, "The provided x-amz-content-sha256 does not match what was computed.")
    return said


def _signature(request: Request, claim: _Claim, secret: str) -> str:
    """Make the signature of a request as it arrived."""
    headers = HTTPHeaders()
    for raw, value in request.headers:
        name = _text(raw).lower()
        if name in claim.signed_headers:
            headers[name] = _text(value)
    presigned = claim.expires_s is not None
    parameters = [
        (name, value) for name, value in _parameters(request) if not (presigned and name == "X-Amz-Signature")
    ]
    signer = SigV4Auth(Credentials(claim.key_id, secret), claim.service, claim.region)
    signed = AWSRequest(params=parameters, url="")
    signed.context["timestamp"] = claim.timestamp
    canonical = "\n".join(
        (
            request.method,
            request.path if claim.is_s3 else quote(normalize_url_path(request.path), safe="/~"),
            signer.canonical_query_string(signed),
            signer.canonical_headers(headers),
            "",
            signer.signed_headers(headers),
            _payload_hash(request, claim),
        )
    )
    return str(signer.signature(signer.string_to_sign(signed, canonical), signed))


def _parameters(request: Request) -> list[tuple[str, str]]:
    if not request.query:
        return []
    try:
        pairs = (pair.partition("=") for pair in request.query.split("&"))
        return [
            (unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict"))
            for name, _, value in pairs
        ]
    except UnicodeDecodeError:
        raise Refused(request, _MISMATCH, "The query is not UTF-8 when percent-decoded.") from None


def _text(value: bytes) -> str:
    """Decode what clients encode as UTF-8, or else as Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _stamp(seconds: float) -> str:
    return time.strftime(SIGV4_TIMESTAMP, time.gmtime(seconds))
