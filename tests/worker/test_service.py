"""MMS handlers behind a real server: what they are given and what becomes of what they give back."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from mmekit.errors import BadRequest
from mmekit_handlers.base import Response
from tests.support.models import body_of, load_message, loaded, request
from tests.support.server import MODELS, Server, until

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=B"
LIMIT = 2000

BODY = (
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nplain\r\n'
    b'--B\r\nContent-Disposition: form-data; name="b"; filename="x.json"\r\n'
    b'Content-Type: application/json\r\n\r\n{"k": 1}\r\n--B--\r\n'
)


@pytest.fixture(scope="module", params=[False, True], ids=["bytes", "decoded"])
def decoding(request: pytest.FixtureRequest) -> Iterator[tuple[Server, bool]]:
    decode: bool = request.param
    environ = {"MMEKIT_DECODE_INPUT_REQUEST": str(decode).lower(), "SAGEMAKER_MAX_RESPONSE_SIZE": str(LIMIT)}
    with Server(**environ) as server:
        assert server.load("shows", MODELS / "shows_inputs").status == 200
        assert server.load("returns", MODELS / "handle_returns").status == 200
        yield server, decode


@pytest.fixture
def server(decoding: tuple[Server, bool]) -> Server:
    return decoding[0]


def shown(server: Server, path: str, body: bytes = b"", content_type: str = "") -> dict[str, list[object]]:
    answer = server.request("POST", path, body, {"Content-Type": content_type} if content_type else {})
    assert answer.status == 200, answer.body
    inputs: dict[str, list[object]] = answer.json["inputs"]
    return inputs


# --- inputs


@pytest.mark.parametrize(
    ("content_type", "body", "raw", "decoded"),
    [
        ("", b"\xff", ["bytearray", "\xff"], ["bytearray", "\xff"]),
        ("text/csv", b"1,2", ["bytearray", "1,2"], ["str", "1,2"]),
        ("application/json; charset=utf-8", b'{"a": 1}', ["bytearray", '{"a": 1}'], ["dict", {"a": 1}]),
    ],
)
def test_a_body_comes_as_bytes_or_decoded_as_the_setting_says(
    decoding: tuple[Server, bool], content_type: str, body: bytes, raw: list[object], decoded: list[object]
) -> None:
    server, decode = decoding
    found = shown(server, "/models/shows/invoke", body, content_type)
    assert found == {"body": decoded if decode else raw}


def test_forms_and_multipart_bodies_are_taken_apart(decoding: tuple[Server, bool]) -> None:
    server, decode = decoding
    assert shown(server, "/models/shows/invoke", b"x=1&y=%ff", FORM) == {
        "x": ["bytearray", "1"],
        "y": ["bytearray", "\xff"],
    }
    assert shown(server, "/models/shows/invoke", BODY, MULTIPART) == {
        "a": ["bytearray", "plain"],
        "b": ["dict", {"k": 1}] if decode else ["bytearray", '{"k": 1}'],
    }


@pytest.mark.parametrize("path", ["/models/shows/invoke?x=1%20a", "/invocations?model_name=shows&x=1%20a"])
def test_query_parameters_are_inputs(server: Server, path: str) -> None:
    found = shown(server, path, b"b")
    assert (found["x"], found["body"]) == (["bytearray", "1 a"], ["bytearray", "b"])
    assert ("model_name" in found) == ("model_name" in path)


def test_query_parameters_of_predictions_are_not(server: Server) -> None:
    assert shown(server, "/predictions/shows?x=1", b"b") == {"body": ["bytearray", "b"]}


def test_a_get_has_an_empty_body(server: Server) -> None:
    answer = server.get("/models/shows/invoke?x=1")
    assert answer.json["inputs"] == {"x": ["bytearray", "1"], "body": ["bytearray", ""]}


def test_headers_have_an_entry_for_each_part(server: Server) -> None:
    headers = server.request(
        "POST", "/models/shows/invoke?q=1", BODY, {"Content-Type": MULTIPART, "X-Custom": "v"}
    ).json["headers"]
    assert headers["X-Custom"] == "v"
    assert headers["Content-Type"] == MULTIPART
    assert {name: headers[name] for name in "qab"} == {
        "q": {"content-type": ""},
        "a": {"content-type": ""},
        "b": {"content-type": "application/json"},
    }


@pytest.mark.parametrize(
    ("path", "body", "content_type", "text", "always"),
    [
        ("", b"{", "application/json", "cannot be read as JSON", False),
        ("", b"", "application/json", "cannot be read as JSON", False),
        ("", b"\xff", "text/plain", "must be UTF-8: byte 0 is 0xff", False),
        ("?x=%zz", b"", "", "The query string has '%zz'", True),
        ("", b"x=%zz", FORM, "The form has '%zz'", True),
        ("", b"--B\r\ngarbage\r\n\r\n", MULTIPART, "Malformed segment header", True),
    ],
)
def test_what_cannot_be_read_is_a_400_and_the_worker_lives(
    decoding: tuple[Server, bool], path: str, body: bytes, content_type: str, text: str, always: bool
) -> None:
    server, decode = decoding
    pid = server.invoke("shows", b"").json["pid"]
    headers = {"Content-Type": content_type} if content_type else {}
    answer = server.request("POST", f"/models/shows/invoke{path}", body, headers)
    if always or decode:
        assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
        assert text in answer.message
    else:
        assert answer.status == 200
    assert server.invoke("shows", b"").json["pid"] == pid


# --- outputs


@pytest.mark.parametrize(
    ("what", "status", "text"),
    [
        ("dict", 503, "Invalid model predict output: "),
        ("too many", 503, "number of batch response mismatched: "),
        ("object", 503, "Unsupported model output data type. "),
        ("inject", 500, "line breaks"),
        ("number header", 500, "expected a str"),
        ("status 99", 500, "expected a number from 200 to 599"),
    ],
)
def test_what_is_no_answer_is_an_error_and_nothing_is_injected(
    server: Server, what: str, status: int, text: str
) -> None:
    answer = server.invoke("returns", what)
    assert (answer.status, answer.json["type"]) == (status, "InternalServerException")
    assert text in answer.message
    assert not any(name.startswith("x-evil") for name in answer.headers)
    assert server.invoke("returns", "ok").text == "ok"


def test_no_content_has_no_body(server: Server) -> None:
    answer = server.invoke("returns", "no content")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize(("code", "status"), [(422, 422), (302, 302), (600, 500)])
def test_a_prediction_exception_has_its_status(server: Server, code: int, status: int) -> None:
    answer = server.invoke("shows", f"raise {code}")
    assert answer.status == status
    assert answer.json == {"code": status, "type": "InternalServerException", "message": "told"}


def test_a_prediction_exception_with_the_code_200_is_a_success(server: Server) -> None:
    answer = server.invoke("shows", "raise 200")
    assert (answer.status, answer.body) == (200, b"error")


def test_an_answer_over_the_limit_is_an_error_with_both_numbers_and_the_worker_lives(server: Server) -> None:
    pid = server.invoke("shows", b"").json["pid"]
    at_limit = server.invoke("shows", f"long {LIMIT}")
    assert (at_limit.status, len(at_limit.body)) == (200, LIMIT)
    answer = server.invoke("shows", f"long {LIMIT + 1}")
    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert answer.message.startswith(f"The answer has {LIMIT + 1} bytes; max_response_size allows {LIMIT}")
    assert server.invoke("shows", b"").json["pid"] == pid


def test_a_streamed_answer_is_cut_at_the_limit(server: Server, tmp_path: Path) -> None:
    code = f"def handle(data, context):\n    return [iter([b'x' * {LIMIT}, b'y']) if data else None]\n"
    (tmp_path / "inference.py").write_text(code)
    name = quote(tmp_path.name)
    assert server.load(name, tmp_path).status == 200
    try:
        with pytest.raises(http.client.IncompleteRead):
            server.invoke(name)
        assert server.told("max_response_size allows")
    finally:
        assert server.unload(name).status == 200


# --- the working folder


def test_a_model_with_a_worker_of_its_own_works_in_its_folder(server: Server, tmp_path: Path) -> None:
    assert server.invoke("shows", b"").json["cwd"] == str(MODELS / "shows_inputs")
    folder = tmp_path / "reads"
    folder.mkdir()
    (folder / "weights.bin").write_text("from the folder")
    (folder / "service.py").write_text(
        "weights = open('weights.bin').read()\n\ndef handle(data, context):\n    return [weights]\n"
    )
    assert server.load("reads", folder, handler="service:handle").status == 200
    shutil.rmtree(folder)
    assert server.invoke("reads").text == "from the folder"
    assert server.unload("reads").status == 200


# --- batches, in this process


def test_a_request_that_cannot_be_read_fails_alone_and_the_others_share_a_call(tmp_path: Path) -> None:
    code = "def handle(data, context):\n    return [[len(data), row['body']] for row in data or ()]\n"
    (tmp_path / "service.py").write_text(code)
    message = load_message(tmp_path, handler="service:handle", batch_size=3)
    with loaded(msgspec.structs.replace(message, decode=True)) as model:
        bodies = (b"[1]", b"[", b"2")
        results = model([request(body, content_type="application/json") for body in bodies])
    assert [type(result) for result in results] == [Response, BadRequest, Response]
    answers = [json.loads(body_of(result)) for result in results if isinstance(result, Response)]
    assert answers == [[2, [1]], [2, 2]]


HALF_A_CHARACTER = """
import json
from mms.service import PredictionException

def handle(data, context):
    if data is not None:
        raise PredictionException("unknown city " + json.loads(data[0]["body"])["city"], 400)
"""


def test_half_a_character_in_an_exception_costs_no_worker(server: Server, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HALF_A_CHARACTER)
    assert server.load("city", tmp_path, handler="service:handle").status == 200
    for _ in range(4):
        answer = server.invoke("city", b'{"city": "\\ud800"}')
        assert (answer.status, answer.message) == (400, "unknown city \\ud800")


def test_half_a_character_in_the_exception_of_a_load_is_in_its_answer(server: Server, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text('raise ValueError("half \\ud800")\n')
    answer = server.load("half", tmp_path, handler="service:handle")
    assert answer.status == 500
    assert "ValueError: half \\ud800 (service.py:1)" in answer.message


STREAMS = """
import logging
import os
import sys

def handle(data, context):
    if data is None:
        return None
    logging.debug("a line for people who debug")
    secrets = [name for name in os.environ if "KEYSTORE" in name]
    return [[sys.stdout.name, sys.stderr.name, sys.stdout.line_buffering, secrets]]
"""


def test_handlers_find_the_streams_names_the_level_of_the_logs_and_no_password(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(STREAMS)
    environ = {"SAGEMAKER_CONTAINER_LOG_LEVEL": "DEBUG", "MMEKIT_KEYSTORE_PASS": "hush"}
    with Server(MMS_KEYSTORE_PASS="hush", **environ) as server:
        assert server.load("m", tmp_path, handler="service:handle").status == 200
        assert server.invoke("m").json == ["<stdout>", "<stderr>", True, []]
        (line,) = until(lambda: server.logged("a line for people who debug"))
        assert line["level"] == "DEBUG"


def test_hop_by_hop_headers_of_a_handler_are_not_sent(server: Server, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "def handle(data, context):\n    if data is None:\n        return None\n"
        "    for name in ('Upgrade', 'Trailer', 'X-Mine'):\n"
        "        context.set_response_header(0, name, 'set')\n    return ['ok']\n"
    )
    assert server.load("m", tmp_path, handler="service:handle").status == 200
    headers = server.invoke("m").headers
    assert headers["x-mine"] == "set"
    assert not {"upgrade", "trailer"} & headers.keys()
