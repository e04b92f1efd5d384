"""The HTTP surface as MMS's clients know it: routes by method and connector, and what every answer has."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.server import COMMAND, Server, image_environ, plain_model, until
from tests.support.wire import Reply, chunked, request, talk

NO_METHOD = "Requested method is not allowed, please refer to API document."
NO_ROUTE = "Requested resource is not found, please refer to API document."

_HANDLER = '''
"""A request is JSON: the status, phrase, headers and body to answer with."""

import json


def handle(data, context):
    if data is None:
        return None
    wanted = json.loads(data[0]["body"])
    if "status" in wanted:
        context.set_response_status(wanted["status"], wanted.get("phrase", ""), 0)
    for name, value in wanted.get("headers", {}).items():
        context.set_response_header(0, name, value)
    return [wanted.get("body", "")]
'''


def obeying_model(folder: Path) -> Path:
    """A model folder whose answers are what the request asks for."""
    folder.mkdir()
    (folder / "service.py").write_text(_HANDLER)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two connectors; the models echo (any text after "echo ") and obey (see obeying_model)."""
    folder = tmp_path_factory.mktemp("surface")
    environ = image_environ(
        MMEKIT_INFERENCE_ADDRESS="http://127.0.0.1:0",
        MMEKIT_MANAGEMENT_ADDRESS="http://127.0.0.2:0",
        SAGEMAKER_MAX_REQUEST_SIZE="100000",
    )
    with Server(**environ) as server:
        assert server.load("echo", plain_model(folder)).status == 200
        loaded = server.load("obey", obeying_model(folder / "obey"), handler="service:handle")
        assert loaded.status == 200, loaded.body
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All routes on one port, CORS configured; the same models."""
    folder = tmp_path_factory.mktemp("cors")
    environ = image_environ(
        MMEKIT_CORS_ALLOWED_ORIGIN="https://example.org",
        MMEKIT_CORS_ALLOWED_METHODS="GET, POST, PUT, OPTIONS",
        MMEKIT_CORS_ALLOWED_HEADERS="X-Custom-Header, Content-Type",
        SAGEMAKER_MAX_REQUEST_SIZE="100000",
    )
    with Server(**environ) as server:
        assert server.load("echo", plain_model(folder)).status == 200
        loaded = server.load("obey", obeying_model(folder / "obey"), handler="service:handle")
        assert loaded.status == 200, loaded.body
        yield server


def told(server: Server, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> Reply:
    """One request to the inference connector, read from the wire."""
    sent = request(method, path, headers, body)
    return talk(server.addresses["inference"], sent, [method])[0]


def obey(server: Server, **wanted: object) -> Reply:
    return told(server, "POST", "/models/obey/invoke", json.dumps(wanted).encode())


# --- routes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "inference", "management"),
    [
        ("GET", "/ping", 200, 404),
        ("POST", "/ping", 200, 404),
        ("OPTIONS", "/ping", 200, 404),
        ("GET", "/ping/", 200, 404),
        ("GET", "/ping/anything/else", 200, 404),
        ("HEAD", "/ping", 200, 404),
        ("GET", "/PING", 404, 404),
        ("OPTIONS", "/", 200, 200),
        ("OPTIONS", "//", 200, 200),
        ("OPTIONS", "*", 200, 200),
        ("GET", "/", 405, 405),
        ("GET", "//", 405, 405),
        ("POST", "/", 405, 405),
        ("GET", "/api-description", 200, 200),
        ("POST", "/api-description/", 200, 200),
        ("GET", "/api-description/x", 405, 405),
        ("GET", "/metrics", 200, 200),
        ("POST", "/metrics", 405, 405),
        ("POST", "/predictions/echo", 200, 404),
        ("PUT", "/predictions/echo", 200, 404),
        ("POST", "/predictions/echo/any/thing", 200, 404),
        ("OPTIONS", "/predictions/echo", 200, 404),
        ("POST", "/predictions/none", 404, 404),
        ("OPTIONS", "/predictions/none", 404, 404),
        ("POST", "/predictions", 404, 404),
        ("POST", "/predictions/", 404, 404),
        ("POST", "/invocations", 400, 404),
        ("POST", "/invocations?model_name=echo", 200, 404),
        ("POST", "/invocations?model_name=none", 404, 404),
        ("POST", "/invocations/x", 404, 404),
        ("POST", "/models/echo/invoke", 200, 404),
        ("PATCH", "/models/echo/invoke", 200, 404),
        ("OPTIONS", "/models/echo/invoke", 200, 404),
        ("POST", "/models/none/invoke", 404, 404),
        ("POST", "/models/echo/other", 404, 404),
        ("POST", "/models/echo/invoke/x", 404, 404),
        ("POST", "/echo/predict", 200, 404),
        ("POST", "/none/predict", 404, 404),
        ("POST", "/echo/predict/x", 404, 404),
        ("GET", "/execution-parameters", 200, 404),
        ("HEAD", "/execution-parameters", 200, 404),
        ("POST", "/execution-parameters", 405, 404),
        ("GET", "/models", 404, 200),
        ("GET", "/models/", 404, 200),
        ("HEAD", "/models", 404, 405),
        ("OPTIONS", "/models", 404, 405),
        ("PUT", "/models", 404, 405),
        ("DELETE", "/models", 404, 405),
        ("GET", "/models/echo", 404, 200),
        ("GET", "/models/echo/", 404, 200),
        ("GET", "/models/none", 404, 404),
        ("HEAD", "/models/echo", 404, 405),
        ("OPTIONS", "/models/echo", 404, 405),
        ("POST", "/models/echo", 404, 405),
        ("PATCH", "/models/echo", 404, 405),
        ("GET", "/nowhere", 404, 404),
        ("GET", "/no/where/at/all", 404, 404),
    ],
)
def test_routes_by_method_and_connector(
    server: Server, method: str, path: str, inference: int, management: int
) -> None:
    body = b"echo x" if method in ("POST", "PUT", "PATCH") else b""
    for on, status in (("inference", inference), ("management", management)):
        reply = talk(server.addresses[on], request(method, path, (), body), [method])[0]
        assert reply.status == status, (on, reply.body)
        if status == 405:
            assert json.loads(reply.body or "{}").get("message", NO_METHOD) == NO_METHOD
        if status >= 400 and method != "HEAD":
            assert json.loads(reply.body)["code"] == status
        if method == "HEAD":
            assert reply.body == b""
            assert int(reply.header("content-length") or 0) > 0


def test_a_path_that_is_no_route_says_so(server: Server) -> None:
    for path in ("/nowhere", "/predictions", "/invocations/x", "/models/echo/other", "/models"):
        answer = server.get(path)
        assert (answer.json["type"], answer.message) == ("ResourceNotFoundException", NO_ROUTE)


def test_on_one_port_a_model_named_predict_can_be_described(shared: Server, tmp_path: Path) -> None:
    assert shared.load("predict", plain_model(tmp_path)).status == 200
    assert shared.get("/models/predict").json["modelName"] == "predict"
    assert shared.request("POST", "/predict/predict", "echo x").text == "x"
    shared.unload("predict")


@pytest.mark.parametrize("name", ["a/b", "with space", "ünï", "100%", "%2F", "a?b#c", "..", "x" * 2000])
def test_any_name_is_addressed_by_its_percent_encoded_form_on_every_route(
    server: Server, tmp_path: Path, name: str
) -> None:
    assert server.load(name, plain_model(tmp_path)).status == 200
    encoded = quote(name, safe="")
    for path in (f"/models/{encoded}/invoke", f"/predictions/{encoded}", f"/{encoded}/predict"):
        assert server.request("POST", path, "echo hello").text == "hello"
    query = f"/invocations?model_name={encoded}"
    assert server.request("POST", query, "echo hello").text == "hello"
    described = server.request("GET", f"/models/{encoded}", on="management")
    assert described.json["modelName"] == name
    assert server.unload(encoded).status == 200


@pytest.mark.parametrize("part", ["%", "%zz", "a%2", "%ff", "%c3%28"])
def test_a_broken_escape_is_a_400_that_shows_it(server: Server, part: str) -> None:
    for method, path, on in (
        ("POST", f"/models/{part}/invoke", "inference"),
        ("POST", f"/predictions/{part}", "inference"),
        ("POST", f"/invocations?model_name={part}", "inference"),
        ("GET", f"/models/{part}", "management"),
    ):
        answer = server.request(method, path, on=on)
        assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
        assert "%" in answer.message


def test_execution_parameters_are_those_of_the_settings() -> None:
    environ = {"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "7"}
    with Server(**environ) as server:
        assert server.get("/execution-parameters").json == {
            "MaxConcurrentTransforms": 3,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": 7,
        }


def test_a_body_limit_below_a_mebibyte_is_not_told_as_no_limit(server: Server) -> None:
    assert server.get("/execution-parameters").json["MaxPayloadInMB"] == 1


# --- what every answer has -------------------------------------------------------------------------------

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_every_answer_has_its_headers_once_in_lower_case(server: Server) -> None:
    replies = [
        told(server, "GET", "/ping"),
        told(server, "GET", "/nowhere"),
        told(server, "OPTIONS", "/"),
        told(server, "POST", "/models/echo/invoke", b"echo x"),
        told(server, "POST", "/models/echo/invoke", b"raise x"),
        told(server, "POST", "/models/none/invoke", b"x"),
        obey(server, status=404, headers={"X-Mine": "1"}),
    ]
    for reply in replies:
        names = [name for name, _ in reply.headers]
        assert len(names) == len(set(names))
        assert [name for name in names if name != "X-Mine"] == [
            name.lower() for name in names if name != "X-Mine"
        ]
        assert reply.header("pragma") == "no-cache"
        assert reply.header("cache-control") == "no-cache; no-store, must-revalidate, private"
        assert reply.header("expires") == "Thu, 01 Jan 1970 00:00:00 UTC"
        assert _UUID4.fullmatch(reply.header("x-request-id") or "")
        assert reply.header("content-length") == str(len(reply.body))
        assert reply.header("connection") == ("keep-alive" if reply.status < 400 else "close")


def test_request_ids_are_the_servers_whatever_client_or_handler_say(server: Server) -> None:
    mine = ("x-request-id", "mine")
    replies = [told(server, "GET", "/ping", b"", mine), obey(server, headers={"X-Request-Id": "mine"})]
    sent = request("GET", "/ping") * 3
    replies += talk(server.addresses["inference"], sent, ["GET"] * 3)
    ids = [reply.header("x-request-id") or "" for reply in replies]
    assert all(_UUID4.fullmatch(each) for each in ids)
    assert len(set(ids)) == len(ids)


def test_the_servers_headers_win_over_a_handlers(server: Server) -> None:
    reply = obey(
        server,
        headers={
            "Pragma": "cache",
            "CACHE-CONTROL": "max-age=3600",
            "expires": "never",
            "Connection": "upgrade",
            "Content-Length": "1",
            "Transfer-Encoding": "chunked",
            "X-Mine": "kept",
        },
        body="hello",
    )
    assert (reply.status, reply.body) == (200, b"hello")
    names = [name.lower() for name, _ in reply.headers]
    assert len(names) == len(set(names))
    assert reply.header("x-mine") == "kept"
    assert reply.header("cache-control") == "no-cache; no-store, must-revalidate, private"
    assert reply.header("connection") == "keep-alive"
    assert reply.header("transfer-encoding") is None


def test_below_400_the_connection_stays_open_and_from_400_on_it_closes(server: Server) -> None:
    good, bad = request("GET", "/ping"), request("GET", "/nowhere")
    address = server.addresses["inference"]
    first, second, third = talk(address, good + good + bad, ["GET"] * 3)
    assert [first.status, second.status, third.status] == [200, 200, 404]
    assert (third.header("connection"), third.closed) == ("close", True)
    # What was sent after the error is not answered.
    assert [reply.status for reply in talk(address, bad + good, ["GET"] * 2)] == [404, 0]


@pytest.mark.parametrize(
    ("status", "closes"), [(200, False), (299, False), (399, False), (404, True), (503, True)]
)
def test_a_handlers_own_status_decides_as_well(server: Server, status: int, closes: bool) -> None:
    reply = obey(server, status=status, body="its own")
    assert (reply.status, reply.body) == (status, b"its own")
    assert reply.header("connection") == ("close" if closes else "keep-alive")
    assert reply.closed is closes


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/ping", [("Connection", "close")]),
        b"GET /ping HTTP/1.0\r\n\r\n",
    ],
)
def test_a_client_that_wants_its_connection_closed_gets_it(server: Server, sent: bytes) -> None:
    reply = talk(server.addresses["inference"], sent, ["GET"])[0]
    assert (reply.status, reply.header("connection"), reply.closed) == (200, "close", True)


def test_expect_100_continue_is_answered_before_the_body(server: Server) -> None:
    sent = request("POST", "/models/echo/invoke", [("Expect", "100-continue")], b"echo hello")
    head, body = sent.split(b"\r\n\r\n")
    replies = talk(server.addresses["inference"], head + b"\r\n\r\n", ["POST"], timeout_s=20)
    assert replies[0].status == 100
    replies = talk(server.addresses["inference"], sent, ["POST"])
    assert (replies[0].status, replies[0].body) == (200, body.removeprefix(b"echo "))


def test_expect_100_continue_over_the_limit_is_refused_at_once(server: Server) -> None:
    headers = [("Expect", "100-continue"), ("Content-Length", "100001")]
    reply = told(server, "POST", "/models/echo/invoke", b"", *headers)
    assert (reply.status, reply.header("connection"), reply.closed) == (413, "close", True)


def test_chunked_requests_are_put_together(server: Server) -> None:
    sent = request(
        "POST", "/models/echo/invoke", [("Transfer-Encoding", "chunked")], chunked(b"echo ", b"hel", b"lo")
    )
    reply = talk(server.addresses["inference"], sent, ["POST"])[0]
    assert (reply.status, reply.body) == (200, b"hello")


def test_a_204_has_neither_body_nor_length_and_the_connection_goes_on(server: Server) -> None:
    asked = request("POST", "/models/obey/invoke", (), json.dumps({"status": 204, "body": "x"}).encode())
    first, second = talk(server.addresses["inference"], asked + request("GET", "/ping"), ["POST", "GET"])
    assert (first.status, first.header("content-length")) == (204, None)
    assert second.status == 200


def test_json_is_printed_with_two_spaces_and_a_newline_and_without_empty_fields(server: Server) -> None:
    for path, on in (("/ping", "inference"), ("/nowhere", "inference"), ("/models/echo", "management")):
        answer = server.request("GET", path, on=on)
        assert answer.headers["content-type"] == "application/json"
        assert answer.text == json.dumps(answer.json, indent=2) + "\n"
        assert None not in answer.json.values()


# --- CORS ------------------------------------------------------------------------------------------------

_CORS = {
    "access-control-allow-origin": "https://example.org",
    "access-control-allow-methods": "GET, POST, PUT, OPTIONS",
    "access-control-allow-headers": "X-Custom-Header, Content-Type",
}


def cors_of(reply: Reply) -> dict[str, str]:
    return {name: value for name, value in reply.headers if name.lower().startswith("access-control-")}


def test_without_the_settings_there_are_no_cors_headers(server: Server) -> None:
    assert not cors_of(told(server, "GET", "/ping", b"", ("Origin", "https://example.org")))


def test_with_the_settings_every_answer_has_them_errors_included(shared: Server) -> None:
    too_large = ("Content-Length", "100001")
    replies = [
        told(shared, "GET", "/ping"),
        told(shared, "GET", "/models"),
        told(shared, "GET", "/metrics"),
        told(shared, "POST", "/models/echo/invoke", b"echo x"),
        told(shared, "POST", "/models/echo/invoke", b"stream 3 10 0"),
        told(shared, "POST", "/models/echo/invoke", b"raise x"),
        told(shared, "GET", "/nowhere"),
        told(shared, "OPTIONS", "/models"),
        told(shared, "POST", "/models/echo/invoke", b"", too_large),
        talk(shared.addresses["inference"], b"no http\r\n\r\n", ["GET"])[0],
    ]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 200, 503, 404, 405, 413, 400]
    for reply in replies:
        assert cors_of(reply) == _CORS


def test_a_handlers_cors_header_wins(shared: Server) -> None:
    reply = obey(shared, headers={"Access-Control-Allow-Origin": "*"})
    expected = {**_CORS, "Access-Control-Allow-Origin": "*"}
    del expected["access-control-allow-origin"]
    assert cors_of(reply) == expected


_PREFLIGHT = (("Origin", "https://example.org"), ("Access-Control-Request-Method", "POST"))


@pytest.mark.parametrize(
    "path", ["/models/echo/invoke", "/predictions/echo", "/invocations", "/models", "/models/echo"]
)
def test_a_browsers_preflight_is_answered_with_what_is_allowed(shared: Server, path: str) -> None:
    reply = told(shared, "OPTIONS", path, b"", *_PREFLIGHT)
    assert (reply.status, reply.body) == (204, b"")
    assert cors_of(reply) == _CORS


def test_without_cors_settings_a_preflight_is_as_any_options(server: Server) -> None:
    reply = told(server, "OPTIONS", "/predictions/echo", b"", *_PREFLIGHT)
    assert json.loads(reply.body)["openapi"] == "3.0.1"


def test_options_that_is_no_preflight_describes_with_cors_too(shared: Server) -> None:
    reply = told(shared, "OPTIONS", "/predictions/echo", b"", ("Origin", "https://example.org"))
    assert json.loads(reply.body)["openapi"] == "3.0.1"
    assert cors_of(reply) == _CORS


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "ünï", "\x7f"])
def test_a_cors_setting_that_cannot_be_a_header_ends_the_start(value: str) -> None:
    server = Server(MMEKIT_CORS_ALLOWED_ORIGIN=value)
    done = subprocess.run(
        [COMMAND, "serve"], env=server.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78
    assert f"MMEKIT_CORS_ALLOWED_ORIGIN={value!r} cannot be used: expected printable ASCII" in done.stderr


# --- health in MMS mode ----------------------------------------------------------------------------------


def test_in_mms_mode_ping_says_how_many_of_the_workers_asked_for_are_there(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("default_workers_per_model=1\nmodel_store=/\n")
    with Server("--mms-config", str(config), **image_environ()) as server:

        def health() -> str:
            answer = server.get("/ping")
            assert answer.status == 200
            return str(answer.json["status"])

        assert health() == "Healthy"
        url, go = plain_model(tmp_path), tmp_path / "loads"
        slow = plain_model(tmp_path, "slow")
        (slow / "staying_load").write_text(str(go))
        assert server.load("later", slow, synchronous=False, initial_workers=1).status == 202
        until(go.exists)
        assert health() == "Unhealthy"
        go.unlink()
        until(lambda: health() == "Healthy")
        assert server.load("none", url, initial_workers=0).status == 200
        assert health() == "Healthy", "none was asked for"
        assert server.load("crashes", url).status == 200
        server.invoke("crashes", "kill ")
        assert health() == "Healthy", "it comes back when it is called"
        for _ in range(2):
            server.invoke("crashes", "kill ")
        assert health() == "Partial Healthy", "it is quarantined"
