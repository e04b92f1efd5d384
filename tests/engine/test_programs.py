"""Both engines give the same answers for models that bring code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.support import MmsServer
from tests.support.looking import code_model
from tests.support.mms import MMS
from tests.support.samples import COUNTS, with_sample
from tests.support.server import IMAGE_CODE, MODELS, Answer, Server, plain_model, until

pytestmark = pytest.mark.mms

Engines = tuple[Server, Server]

#: Answers with the names and values that an MMS handler finds in its input.
INPUTS = """
class Service:
    def initialize(self, context):
        self.name = context.model_name

    def handle(self, data, context):
        kind = context.get_request_header(0, "Content-Type").partition(";")[0]
        context.set_response_header(0, "X-Kind", kind)
        context.metrics.add_counter("RowsSeen", len(data), 0)
        return [{name: bytes(value).decode() for name, value in row.items()} for row in data]
"""

SPLIT = "b0undary"
MULTIPART = (
    f'--{SPLIT}\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n'
    f'--{SPLIT}\r\nContent-Disposition: form-data; name="table"; filename="t.csv"\r\n'
    f"Content-Type: text/csv\r\n\r\n1,2\r\n--{SPLIT}--\r\n"
).encode()


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    with Server() as native, MmsServer() as mms:
        yield native, mms


def _ask(
    engines: Engines, folder: Path, body: bytes, kind: str, path: str = "", **headers: str
) -> list[Answer]:
    """Load a model on both engines, ask once, unload."""
    answers = []
    for engine in engines:
        loaded = engine.load(folder.name, folder)
        assert loaded.status == 200, loaded.body
        sent = {"Content-Type": kind, **headers}
        answers.append(engine.request("POST", f"/models/{folder.name}/invoke{path}", body, sent))
        assert engine.unload(folder.name).status == 200
    return answers


@pytest.mark.parametrize(
    ("model", "body", "kind"),
    [
        ("code_dir", b"[[1, 2], [3, 4]]", "application/json"),
        ("echo", bytes(range(256)), "application/octet-stream"),
        ("streams", b"3", "text/plain"),
    ],
)
def test_a_program_of_four_functions_answers_the_same(
    engines: Engines, model: str, body: bytes, kind: str
) -> None:
    native, mms = _ask(engines, MODELS / model, body, kind)
    assert mms.status == native.status == 200
    assert mms.body == native.body
    assert mms.headers.get("content-type") == native.headers.get("content-type")


def test_a_program_sets_status_and_headers_through_the_context(engines: Engines) -> None:
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1"}
    native, mms = _ask(engines, MODELS / "context_args", b"x", "text/plain", **attributes)
    assert mms.status == native.status == 202
    assert mms.headers["x-note"] == native.headers["x-note"] == "seen"
    assert mms.body == native.body == b"trace=1 in context_args"


@pytest.mark.parametrize(
    ("path", "body", "kind", "inputs"),
    [
        ("", b"1,2", "text/csv", {"body": "1,2"}),
        ("?a=1&b=x%20y", b"1,2", "text/csv", {"a": "1", "b": "x y", "body": "1,2"}),
        ("", b"a=1&b=x%20y", "application/x-www-form-urlencoded", {"a": "1", "b": "x y"}),
        (
            "?q=0",
            MULTIPART,
            f"multipart/form-data; boundary={SPLIT}",
            {"q": "0", "text": "hello", "table": "1,2"},
        ),
    ],
    ids=["body", "query", "form", "multipart"],
)
def test_an_mms_style_program_finds_the_same_inputs(
    engines: Engines, tmp_path: Path, path: str, body: bytes, kind: str, inputs: dict[str, str]
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "inference.py").write_text(INPUTS)
    native, mms = _ask(engines, folder, body, kind, path)
    assert mms.status == native.status == 200, (native.body, mms.body)
    assert mms.json == native.json == inputs
    assert mms.headers["x-kind"] == native.headers["x-kind"] == kind.partition(";")[0]


def test_what_a_handler_reports_becomes_multi_model_servers_own_metrics(tmp_path: Path) -> None:
    """sagemaker-inference's log settings print no metrics, so this runs the class that MMS's workers run."""
    (tmp_path / "inference.py").write_text(INPUTS)
    program = """
import sys
from mms.service import Service
from mmekit.engine.service import handle
service = Service("m", sys.argv[1], None, handle, None, 1)
from mms.metrics.metrics_store import MetricsStore
service.context.metrics = MetricsStore("", "m")
handle(None, service.context)
body = {"name": "body", "value": b"1,2", "contentType": "text/csv"}
header = {"name": b"Content-Type", "value": b"text/csv"}
service.predict([{"requestId": b"id-7", "parameters": [body], "headers": [header]}])
print(*service.context.metrics.store, sep="\\n")
"""
    command = [MMS / "bin" / "python", "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RowsSeen")]
    assert line.startswith("RowsSeen.Count:1|#")
    assert "requestID:id-7" in line


@pytest.mark.parametrize(("model", "status"), [("raises_on_predict", 500), ("out_of_memory_on_predict", 507)])
def test_a_failing_program_has_the_same_status_and_the_model_stays(
    engines: Engines, model: str, status: int
) -> None:
    native, mms = _ask(engines, MODELS / model, b"[1]", "application/json")
    assert mms.status == native.status == status, (native.body, mms.body)
    assert mms.json["type"] == native.json["type"] == "InternalServerException" or status == 507


def test_a_load_that_fails_or_lacks_memory_has_the_same_status(engines: Engines) -> None:
    for engine in engines:
        # 507 asks for another model to be unloaded: the native engine says so only where there is one.
        assert engine.load("other", MODELS / "echo").status == 200
    for model, status in (("raises_on_load", 500), ("out_of_memory_on_load", 507)):
        native, mms = (engine.load(model, MODELS / model) for engine in engines)
        assert mms.status == native.status == status, (native.body, mms.body)
    # MMS keeps a model registered that had no memory.
    engines[1].unload("out_of_memory_on_load")
    for engine in engines:
        assert engine.unload("other").status == 200


def test_a_handler_of_the_image_serves_models_without_code(tmp_path: Path) -> None:
    environ = {"SAGEMAKER_HANDLER": "image_handler:handle", "PYTHONPATH": str(IMAGE_CODE)}
    folder = plain_model(tmp_path)
    with Server(**environ) as native, MmsServer(**environ) as mms:
        for engine in (native, mms):
            assert engine.load("plain", folder).status == 200
            assert engine.invoke("plain", "echo hello").body == b"hello"
            facts = json.loads(engine.invoke("plain", "facts").body)
            assert facts["model"] == "plain"
            assert facts["model_dir"] == str(folder)


def test_models_are_warmed_up_with_their_samples(engines: Engines, tmp_path: Path) -> None:
    warm = with_sample(code_model(tmp_path, "warm", COUNTS.format(body="")), warmUp=2, accept="text/plain")
    cold = with_sample(code_model(tmp_path, "cold", COUNTS.format(body="1 / 0")), warmUp=1)
    for server in engines:
        assert server.load("warm", warm).status == 200
        calls = eval(server.invoke("warm", b"real", "text/csv").text)
        assert calls[:-1] == [("1,2", "text/csv", "text/plain")] * 2
        assert calls[-1][0] == "real"
        assert server.load("cold", cold).status == 500
        server.unload("warm")
    native, mms = engines
    assert "cold" not in native.models()
    # MMS answers first, and takes the model off its list then (ManagementRequestHandler: sendError, onError).
    until(lambda: "cold" not in mms.models(), what="the failed model leaving MMS's list")
