"""A model with a sample request is warm when its load is answered, or it is not loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.framework_models import xgboost_model
from tests.support.looking import EVALUATE, code_model, look
from tests.support.samples import COUNTS, with_sample
from tests.support.server import Server, until


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with Server(MMEKIT_WORKERS="1") as started:
        yield started


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    yield started
    started.unload("m")


def counting(tmp_path: Path, body: str = "", **fields: object) -> Path:
    return with_sample(code_model(tmp_path, "m", COUNTS.format(body=body)), **fields)


def refusal(server: Server, path: Path) -> str:
    """What a load is answered with; nothing of it stays."""
    answer = server.load("m", path)
    assert answer.status == 500, answer.body
    assert "m" not in server.models()
    assert server.invoke("m").status == 404
    return answer.message


@pytest.mark.parametrize("times", [1, 3])
def test_the_first_call_after_the_load_is_not_the_models_first(
    server: Server, tmp_path: Path, times: int
) -> None:
    assert server.load("m", counting(tmp_path, warmUp=times, accept="text/plain")).status == 200
    calls = eval(server.invoke("m", b"real", "text/csv").text)
    assert calls[:-1] == [("1,2", "text/csv", "text/plain")] * times
    assert calls[-1][0] == "real"


@pytest.mark.parametrize("fields", [{}, {"warmUp": 0}])
def test_a_sample_that_asks_for_no_warm_up_is_not_sent(
    server: Server, tmp_path: Path, fields: dict[str, object]
) -> None:
    assert server.load("m", counting(tmp_path, **fields)).status == 200
    assert len(eval(server.invoke("m", b"real", "text/csv").text)) == 1


def test_a_built_in_handlers_model_is_warmed_up(server: Server, tmp_path: Path) -> None:
    folder = with_sample(xgboost_model(tmp_path / "m").folder, b"1,2,3,4", warmUp=1)
    assert server.load("m", folder).status == 200


def test_a_model_that_cannot_answer_its_sample_is_not_loaded_and_the_answer_names_file_and_line(
    server: Server, tmp_path: Path
) -> None:
    message = refusal(server, counting(tmp_path, 'raise ValueError("no such column")', warmUp=1))
    assert message == (
        "Failed to start workers: the model does not answer its own sample request, MAR-INF/sample-request "
        "(text/csv), with which it is to be warmed up: 500, Prediction failed: ValueError: no such column "
        "(inference.py:9)"
    )


def test_a_sample_that_the_built_in_handler_refuses_fails_the_load(server: Server, tmp_path: Path) -> None:
    message = refusal(server, with_sample(xgboost_model(tmp_path / "m").folder, b"1,2", warmUp=1))
    assert "its own sample request, MAR-INF/sample-request (text/csv)" in message
    assert "400, " in message
    assert "4" in message.partition("400, ")[2]


def test_an_answer_with_an_errors_status_fails_the_load(server: Server, tmp_path: Path) -> None:
    source = """
def handle(data, context):
    if data is not None:
        context.set_response_status(418, "I'm a teapot", 0)
        return ["short and stout"]
"""
    folder = with_sample(code_model(tmp_path, "m", "", service=source), warmUp=1)
    (folder / "code/inference.py").unlink(missing_ok=True)
    manifest = {"runtime": "python", "model": {"modelName": "m", "handler": "service.py:handle"}}
    (folder / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
    assert refusal(server, folder).endswith("warmed up: 418 I'm a teapot")


def test_a_streamed_answer_is_read_to_its_end(server: Server, tmp_path: Path) -> None:
    source = """
def model_fn(model_dir):
    return model_dir

def transform_fn(model, input_data, content_type, accept):
    def parts():
        yield b"first"
        raise ValueError("half way")
    return parts(), "text/plain"
"""
    message = refusal(server, with_sample(code_model(tmp_path, "m", source), warmUp=1))
    assert "ValueError: half way" in message


def test_a_sample_that_ends_the_process_is_a_failed_load(server: Server, tmp_path: Path) -> None:
    refusal(server, counting(tmp_path, "import os; os._exit(3)", warmUp=1))
    assert "the code called exit(3)" in refusal(
        server, counting(tmp_path / "again", "raise SystemExit(3)", warmUp=1)
    )


def test_a_warm_up_without_memory_is_a_load_without_memory(server: Server, tmp_path: Path) -> None:
    assert server.load("other", code_model(tmp_path, "other")).status == 200  # unloading it may help
    try:
        answer = server.load("m", counting(tmp_path, "raise MemoryError()", warmUp=1))
        assert answer.status == 507, answer.body
    finally:
        server.unload("other")


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("{", "Failed to parse MAR-INF/sample-request.json"),
        ("[]", 'expected {"contentType": "text/csv"'),
        ('{"warmUp": 1}', '"contentType" in MAR-INF/sample-request.json is None'),
        ('{"contentType": "a\\nb"}', '"contentType" in MAR-INF/sample-request.json'),
        ('{"contentType": "text/csv", "accept": 3}', '"accept" in MAR-INF/sample-request.json is 3'),
        ('{"contentType": "text/csv", "warmUp": true}', "expected a number of predictions, 0 to 100"),
        ('{"contentType": "text/csv", "warmUp": 101}', "expected a number of predictions, 0 to 100"),
        ('{"contentType": "text/csv", "warmup": 1}', "has 'warmup'"),
    ],
)
def test_a_description_that_cannot_be_used_fails_the_load(
    server: Server, tmp_path: Path, description: str, why: str
) -> None:
    folder = counting(tmp_path)
    (folder / "MAR-INF/sample-request.json").write_text(description)
    answer = server.load("m", folder)
    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
    assert why in answer.message


def test_a_sample_without_its_body_fails_the_load(server: Server, tmp_path: Path) -> None:
    folder = counting(tmp_path, warmUp=1)
    (folder / "MAR-INF/sample-request").unlink()
    assert "but not the request itself, MAR-INF/sample-request" in server.load("m", folder).message


def test_what_a_warm_up_reports_is_no_requests_metric(server: Server, tmp_path: Path) -> None:
    source = """
def handle(data, context):
    if data is None:
        return None
    context.metrics.add_counter("Warmed", 1)
    return [b"x"]
"""
    folder = with_sample(code_model(tmp_path, "m", "", service=source), warmUp=1)
    (folder / "code/inference.py").unlink(missing_ok=True)
    manifest = {"runtime": "python", "model": {"modelName": "m", "handler": "service.py:handle"}}
    (folder / "MAR-INF/MANIFEST.json").write_text(json.dumps(manifest))
    assert server.load("m", folder).status == 200
    assert server.invoke("m", b"x").status == 200
    metrics = until(lambda: [line for line in server.lines if line.get("metric") == "Warmed"])
    assert [bool(line.get("request_id")) for line in metrics] == [True]


def test_a_model_without_a_sample_is_loaded_as_ever(server: Server, tmp_path: Path) -> None:
    assert server.load("m", code_model(tmp_path, "m", EVALUATE)).status == 200
    assert look(server, "m", "1 + 1") == 2
