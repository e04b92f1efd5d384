"""What real clients sign is accepted as it arrives over a socket; what is changed on the way is refused."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore import UNSIGNED, auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from mmekit.http.message import Request, Response, split_target
from mmekit_endpoint.api.signing import Refused, Verifier, refusal, region_of

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
VERIFIER = Verifier({KEY: SECRET, "OTHER": "other"})
CREDENTIALS = Credentials(KEY, SECRET)


# --- requests of real clients


class Gate(ThreadingHTTPServer):
    """Keeps what arrives, in order; answers what ``answer`` makes of it."""

    daemon_threads = True
    arrived: list[Request]
    answer: Callable[[Request], Response]


class Handler(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"  # clients wait a second for "100 Continue"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # `self.path` has slashes at its start made one.
        path, query = split_target(self.raw_requestline.split()[1].decode("latin-1"))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        request = Request(self.command, path, query, headers, body)
        self.server.arrived.append(request)
        answer = self.server.answer(request)
        self.send_response(answer.status)
        for name, value in [*answer.headers, (b"Content-Length", b"%d" % len(answer.body))]:
            self.send_header(name.decode(), value.decode())
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_PUT = do_DELETE = do_POST

    def log_request(self, *args: Any) -> None:
        pass


def verified(request: Request) -> Response:
    """Answer as the endpoint does."""
    try:
        VERIFIER.verify(request)
    except Refused as error:
        return refusal(request, error, "00000000-0000-4000-8000-000000000000")
    if b"x-amz-target" in request.first:
        return Response(200, [(b"Content-Type", b"application/x-amz-json-1.1")], b"{}")
    form = request.first.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")
    return Response(200, [], b"<R><GetCallerIdentityResult/></R>" if form else b"")


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with Gate(("127.0.0.1", 0), Handler) as gate:
        gate.arrived, gate.answer = [], verified
        thread = threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield gate
        gate.shutdown()
        thread.join()


Connect = Callable[..., Any]


@pytest.fixture
def connect(gate: Gate) -> Iterator[Connect]:
    clients = []

    def connect(service: str, key: str = KEY, secret: str = SECRET, **options: Any) -> Any:
        clients.append(
            boto3.client(
                service,
                endpoint_url=f"http://127.0.0.1:{gate.server_port}",
                region_name="eu-west-1",
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=Config(retries={"total_max_attempts": 1}, **options),
            )
        )
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_invocations_are_verified(connect: Connect, gate: Gate) -> None:
    connect("sagemaker-runtime").invoke_endpoint(
        EndpointName="e",
        TargetModel="tenant a/ mod  el.tar.gz",
        CustomAttributes="a,  b;c",
        ContentType="text/csv",
        Body=b"1,2\n" * 100,
    )
    assert region_of(gate.arrived[-1]) == "eu-west-1"


def test_calls_of_the_control_plane_are_verified(connect: Connect) -> None:
    connect("sagemaker").list_endpoints(NameContains="ü")
    connect("sts").get_caller_identity()


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "a b/c+d=e&f",
        "ünïcode/名.tar.gz",
        "//double//slashes/",
        "dots/../and/./more",
        "%2F%zz?#~!*'();:@$,[]\\",
    ],
)
@pytest.mark.parametrize("sign_payload", [True, False])
def test_objects_of_any_name_are_verified(connect: Connect, key: str, sign_payload: bool) -> None:
    s3 = connect("s3", s3={"payload_signing_enabled": sign_payload})
    s3.put_object(Bucket="bucket", Key=key, Body=b"body", Metadata={"a": "x  y"})
    s3.get_object(Bucket="bucket", Key=key, VersionId="a b&c")
    s3.list_objects_v2(Bucket="bucket", Prefix=key, Delimiter="/")
    s3.create_multipart_upload(Bucket="bucket", Key=key)


@pytest.mark.parametrize("key", ["a", "a b/../ü+%//"])
def test_presigned_urls_are_verified(connect: Connect, gate: Gate, key: str) -> None:
    s3 = connect("s3", signature_version="s3v4")
    get = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": key}, ExpiresIn=60)
    put = s3.generate_presigned_url("put_object", {"Bucket": "bucket", "Key": key, "ContentType": "a/b"})

    connection = HTTPConnection("127.0.0.1", gate.server_port)
    for method, url, headers in [("GET", get, {}), ("PUT", put, {"Content-Type": "a/b"})]:
        connection.request(method, url, b"any body", headers)
        assert connection.getresponse().status == 200
        connection.close()
    assert region_of(gate.arrived[-1]) == "eu-west-1"


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("sagemaker-runtime", lambda c: c.invoke_endpoint(EndpointName="e", Body=b""), 0),
        ("sagemaker", lambda c: c.list_models(), 0),
        ("application-autoscaling", lambda c: c.describe_scaling_policies(ServiceNamespace="sagemaker"), 0),
        ("sts", lambda c: c.get_caller_identity(), 1),
        ("s3", lambda c: c.get_object(Bucket="b", Key="k"), 2),
    ],
)
def test_clients_see_the_codes_of_their_protocol(
    connect: Connect, service: str, call: Callable[[Any], Any], code: int
) -> None:
    with pytest.raises(ClientError) as caught:
        call(connect(service, secret="wrong"))
    assert (
        caught.value.response["Error"]["Code"]
        == (
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "SignatureDoesNotMatch",
        )[code]
    )
    assert "does not match the signature you provided" in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

    with pytest.raises(ClientError) as caught:
        call(connect(service, key="NOBODY<&>"))
    assert (
        caught.value.response["Error"]["Code"]
        == (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
        )[code]
    )
    assert "'NOBODY<&>'" in caught.value.response["Error"]["Message"]


def test_unsigned_requests_are_refused(connect: Connect) -> None:
    with pytest.raises(ClientError, match="MissingAuthenticationTokenException"):
        connect("sagemaker-runtime", signature_version=UNSIGNED).invoke_endpoint(EndpointName="e", Body=b"")
    with pytest.raises(ClientError, match="AccessDenied"):
        connect("s3", signature_version=UNSIGNED).get_object(Bucket="b", Key="k")


# --- requests made by hand


def signed(
    method: str = "POST",
    path: str = "/endpoints/e/invocations",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"body",
    service: str = "sagemaker",
    presigned: bool = False,
    checksum_in_trailer: bool = False,
) -> Request:
    """Return a request as botocore signs it and a server receives it."""
    if presigned:
        body = b""  # the signers would move it into the query
    url = f"http://host:8765{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method, url, {"Host": "host:8765", **(headers or {})}, body)
    if checksum_in_trailer:
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    signers = {
        ("s3", False): auth.S3SigV4Auth,
        ("s3", True): auth.S3SigV4QueryAuth,
        ("sagemaker", False): auth.SigV4Auth,
        ("sagemaker", True): auth.SigV4QueryAuth,
    }
    signers[service, presigned](CREDENTIALS, service, "us-west-2").add_auth(request)
    target = request.url.removeprefix("http://host:8765")
    raw_headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
    return Request(method, *split_target(target), raw_headers, body)


def changed(request: Request, **changes: Any) -> Request:
    values = {name: getattr(request, name) for name in ("method", "path", "query", "headers", "body")}
    return Request(**{**values, **changes})


def with_header(request: Request, name: bytes, value: bytes | None) -> Request:
    headers = [pair for pair in request.headers if pair[0].lower() != name.lower()]
    return changed(request, headers=headers if value is None else [*headers, (name, value)])


def code_of(request: Request, verifier: Verifier = VERIFIER) -> str:
    with pytest.raises(Refused) as caught:
        verifier.verify(request)
    assert caught.value.status == 403
    return caught.value.code


@pytest.mark.parametrize("presigned", [False, True])
@pytest.mark.parametrize("service", ["sagemaker", "s3"])
def test_what_was_changed_after_signing_is_refused(service: str, presigned: bool) -> None:
    path, headers = "/endpoints/a/b", {"X-Amz-Meta-A": "1", "Content-Type": "a/b"}
    request = signed("PUT", path, "x=1&y=2", headers, service=service, presigned=presigned)
    VERIFIER.verify(request)
    VERIFIER.verify(with_header(request, b"User-Agent", b"any"))

    for tampered in (
        changed(request, method="GET"),
        changed(request, path="/endpoints/a/c"),
        changed(request, path="/endpoints/a/b#"),
        changed(request, path="/endpoints/a/b/"),
        changed(request, query=request.query.replace("x=1", "x=2")),
        changed(request, query=request.query + "&z=3"),
        changed(request, query=request.query.replace("y=2", "")),
        with_header(request, b"X-Amz-Meta-A", b"2"),
        with_header(request, b"X-Amz-Meta-A", None),
        with_header(request, b"X-Amz-Meta-B", b"2"),
        with_header(request, b"X-Amzn-SageMaker-Target-Variant", b"other"),
        with_header(request, b"Host", b"elsewhere:8765"),
        with_header(request, b"Content-Type", b"a/c"),
        changed(request, headers=[*request.headers, (b"x-amz-meta-a", b"2")]),
    ):
        assert code_of(tampered) == "InvalidSignatureException"
    if (service, presigned) == ("s3", True):
        VERIFIER.verify(changed(request, body=b"Body"))
    else:
        assert code_of(changed(request, body=b"Body")) == "InvalidSignatureException"


def test_paths_are_normalized_as_signers_do() -> None:
    VERIFIER.verify(signed(path="/a/./b//c/../d%20e/"))
    VERIFIER.verify(signed(path="/a/./b//c/../d%20e/", service="s3"))
    assert code_of(changed(signed(path="/a/../b", service="s3"), path="/b")) == "SignatureDoesNotMatch"


def test_a_body_against_its_hash_is_refused() -> None:
    request = signed("PUT", "/bucket/key", service="s3")
    assert code_of(changed(request, body=b"other")) == "XAmzContentSHA256Mismatch"


def test_bodies_that_s3_does_not_sign_pass() -> None:
    request = signed("PUT", "/bucket/key", service="s3", checksum_in_trailer=True)
    assert request.first[b"x-amz-content-sha256"] == b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    VERIFIER.verify(changed(request, body=b"4\r\nbody\r\n0\r\n\r\n"))


def test_other_services_must_sign_bodies() -> None:
    request = signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert code_of(request) == "InvalidSignatureException"


def test_the_key_is_that_of_the_signature() -> None:
    request = signed()
    authorization = request.first[b"authorization"]
    other = with_header(request, b"Authorization", authorization.replace(KEY.encode(), b"OTHER"))
    nobody = with_header(request, b"Authorization", authorization.replace(KEY.encode(), b"NOBODY"))

    assert code_of(other) == "InvalidSignatureException"
    assert code_of(nobody) == "UnrecognizedClientException"
    assert code_of(with_header(request, b"Authorization", None)) == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(("minutes", "is_good"), [(-16, False), (-14, True), (14, True), (16, False)])
def test_clocks_may_differ_by_15_minutes(minutes: int, is_good: bool) -> None:
    verifier = Verifier({KEY: SECRET}, lambda: time.time() + minutes * 60)
    if is_good:
        verifier.verify(signed())
    else:
        assert code_of(signed(), verifier) == "InvalidSignatureException"
        assert code_of(signed(path="/b/k", service="s3"), verifier) == "RequestTimeTooSkewed"
        with pytest.raises(
            Refused, match=r"^Signature (expired|not yet current): 20\d{6}T\d{6}Z is .*15 min"
        ):
            verifier.verify(signed())


@pytest.mark.parametrize(("minutes", "is_good"), [(-16, False), (-1, True), (59, True), (61, False)])
def test_presigned_urls_are_good_as_long_as_they_say(minutes: int, is_good: bool) -> None:
    verifier = Verifier({KEY: SECRET}, lambda: time.time() + minutes * 60)
    request = signed("GET", "/b/k", service="s3", presigned=True)  # 3600 s
    if is_good:
        verifier.verify(request)
    else:
        assert code_of(request, verifier) == ("AccessDenied" if minutes > 0 else "RequestTimeTooSkewed")


def test_a_date_header_will_do() -> None:
    VERIFIER.verify(signed(headers={"Date": formatdate(usegmt=True)}))


@pytest.mark.parametrize(
    "authorization",
    [
        b"AWS AKID:signature",
        b"Bearer token",
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261127/us-east-1, SignedHeaders=host, Signature=0",
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261127/r/s/aws4_request, SignedHeaders=host",
        b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20200101/r/s/aws4_request, SignedHeaders=host, Signature=0",
        b"AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=\xff",
    ],
)
def test_what_is_not_a_whole_signature_is_refused(authorization: bytes) -> None:
    assert code_of(with_header(signed(), b"Authorization", authorization)) == "IncompleteSignatureException"


@pytest.mark.parametrize(
    "date", [None, b"", b"yesterday", b"20261399T000000Z", b"Mon, 99 Jan 99999 00:00:00 GMT"]
)
def test_a_time_is_needed(date: bytes | None) -> None:
    assert code_of(with_header(signed(), b"X-Amz-Date", date)) == "IncompleteSignatureException"
    dated = with_header(with_header(signed(), b"X-Amz-Date", None), b"Date", date)
    assert code_of(dated) == "IncompleteSignatureException"


@pytest.mark.parametrize("expires", ["0", "-1", "604801", "", "x"])
def test_presigned_urls_are_good_for_a_week_at_most(expires: str) -> None:
    request = signed("GET", "/b/k", service="s3", presigned=True)
    query = re.sub(r"X-Amz-Expires=\d+", f"X-Amz-Expires={expires}", request.query)
    assert code_of(changed(request, query=query)) == "AuthorizationHeaderMalformed"


def test_a_query_that_is_not_utf_8_is_refused() -> None:
    assert code_of(signed(query="a=%ff")) == "InvalidSignatureException"


@pytest.mark.parametrize("authorization", [None, b"", b"Bearer Credential=a/b/c/d", b"Credential=" * 9999])
def test_no_region_is_known_of_what_is_not_signed(authorization: bytes | None) -> None:
    assert region_of(with_header(signed(), b"Authorization", authorization)) is None


def test_the_region_is_that_of_the_signature() -> None:
    assert region_of(signed()) == "us-west-2"
    assert region_of(signed("GET", presigned=True)) == "us-west-2"


# --- properties

SEGMENTS = st.text(st.characters(codec="utf-8"), max_size=8)
PATHS = st.lists(SEGMENTS, max_size=5).map(
    lambda parts: "/" + "/".join(quote(part, safe="") for part in parts)
)
QUERIES = st.lists(st.tuples(SEGMENTS, SEGMENTS), max_size=4).map(
    lambda pairs: "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=20)


@given(PATHS, QUERIES, VALUES, st.binary(max_size=50), st.sampled_from(["s3", "sagemaker"]))
def test_whatever_is_signed_is_accepted(path: str, query: str, value: str, body: bytes, service: str) -> None:
    VERIFIER.verify(signed("PUT", path, query, {"X-Amz-Meta-A": value}, body, service))


@given(PATHS, st.sampled_from(["s3", "sagemaker"]))
def test_whatever_is_presigned_is_accepted(path: str, service: str) -> None:
    VERIFIER.verify(signed("GET", path, "a=%20b", body=b"", service=service, presigned=True))


REQUEST = signed("PUT", "/bucket/some%20key", "a=1&b=2", {"X-Amz-Meta-A": "value"}, b"some body", "s3")
#: Tests may run long after this file was read: then each request would be refused for its age.
SIGNED = time.time()
THEN = Verifier({KEY: SECRET}, lambda: SIGNED)


@given(st.data())
def test_no_changed_byte_is_accepted(data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(["method", "path", "query", "body", "authorization", "x-amz-meta-a"]))
    is_header = part not in ("method", "path", "query", "body")
    old = REQUEST.first[part.encode()] if is_header else getattr(REQUEST, part)
    text = old.decode() if isinstance(old, bytes) else old
    position = data.draw(st.integers(0, len(text) - 1))
    new = text[:position] + data.draw(st.sampled_from("abc019/%=;,.XYZ")) + text[position + 1 :]
    # What separates the fields of Authorization says nothing.
    if new.lower() == text.lower() or (part == "authorization" and text[position] in ", "):
        return
    if is_header:
        request = with_header(REQUEST, part.encode(), new.encode())
    else:
        request = changed(REQUEST, **{part: new.encode() if part == "body" else new})
    THEN.verify(REQUEST)
    with pytest.raises(Refused):
        THEN.verify(request)


@given(st.binary(max_size=200), st.text(st.characters(max_codepoint=255), max_size=60))
def test_rubbish_is_refused(authorization: bytes, query: str) -> None:
    headers = [(b"Host", b"host"), (b"Authorization", authorization), (b"X-Amz-Date", authorization[:16])]
    with pytest.raises(Refused):
        VERIFIER.verify(Request("GET", "/", query, headers))
    with contextlib.suppress(Refused):
        VERIFIER.verify(Request("GET", "/", "X-Amz-Algorithm=AWS4-HMAC-SHA256&" + query, headers[:1]))
