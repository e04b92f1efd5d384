"""Registering, describing and unregistering models as clients of MMS do it (contract 2.5, 2.7, 2.9, 2.10)."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.support.gated import fleeting_model, gated_model, waiting_model, workers
from tests.support.looking import EVALUATE, code_model, exists, look
from tests.support.server import MODELS, Answer, Server, until

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(MMEKIT_WORKERS="2") as server:
        yield server


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Iterator[Path]:
    yield code_model(tmp_path, "m")
    for name in server.models():
        assert server.unload(quote(name, safe="")).status == 200


def by_query(server: Server, **parameters: Any) -> Answer:
    return server.request("POST", f"/models?{urlencode(parameters)}")


def by_json(server: Server, body: str) -> Answer:
    return server.request("POST", "/models", body, JSON)


def status_text(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["status"]


def manifested(folder: Path, **manifest: Any) -> Path:
    path = code_model(folder, "manifested")
    (path / "MAR-INF").mkdir(exist_ok=True)
    (path / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    return path


# --- where parameters come from ---------------------------------------------------------------------


def test_a_json_body_takes_the_place_of_the_query(server: Server, folder: Path) -> None:
    body = json.dumps({"model_name": "json", "url": str(folder)})
    query = urlencode({"model_name": "query", "batch_size": "0"})
    assert server.request("POST", f"/models?{query}", body, JSON).status == 200
    assert server.models() == ["json"]


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json5"]
)
def test_a_body_of_another_type_is_ignored(server: Server, folder: Path, content_type: str) -> None:
    body = urlencode({"model_name": "form", "url": str(folder)})
    answer = server.request("POST", "/models", body, {"Content-Type": content_type})
    assert answer.status == 400
    assert answer.message.startswith("Parameter url is required")


def test_numbers_and_booleans_may_be_texts_in_json(server: Server, folder: Path) -> None:
    parameters = {"batch_size": "3", "initial_workers": "1", "synchronous": "TRUE", "max_batch_delay": "9"}
    assert server.load("m", folder, **parameters).status == 200
    described = server.get("/models/m").json
    assert (described["batchSize"], described["maxBatchDelay"]) == (3, 9)


def test_json_in_single_quotes_is_a_400(server: Server, folder: Path) -> None:
    answer = by_json(server, f"{{'model_name': 'm', 'url': '{folder}'}}")
    assert answer.status == 400
    assert answer.message.startswith("The body is not JSON: ")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch_size": "many"}, "Parameter batch_size must be a whole number from 1 to 10000, not 'many'."),
        ({"batch_size": "0"}, "Parameter batch_size must be a whole number from 1 to 10000, not '0'."),
        ({"batch_size": "1_0"}, "Parameter batch_size must be a whole number from 1 to 10000, not '1_0'."),
        (
            {"initial_workers": "-1"},
            "Parameter initial_workers must be a whole number from 0 to 1024, not '-1'.",
        ),
        (
            {"response_timeout": "0"},
            "Parameter response_timeout must be a whole number from 1 to 1440, not '0'.",
        ),
        ({"synchronous": "perhaps"}, "Parameter synchronous must be true or false, not 'perhaps'."),
        ({"preload_model": "2"}, "Parameter preload_model must be true or false, not '2'."),
    ],
)
def test_a_parameter_in_the_query_that_cannot_be_used_is_a_400_that_names_it(
    server: Server, folder: Path, parameters: dict[str, str], message: str
) -> None:
    answer = by_query(server, model_name="m", url=folder, **parameters)
    assert (answer.status, answer.json["type"], answer.message) == (400, "BadRequestException", message)
    assert server.models() == []


@pytest.mark.parametrize("runtime", ["python", "python2", "python3"])
def test_the_runtimes_of_mms_are_taken_and_described(server: Server, folder: Path, runtime: str) -> None:
    assert server.load("m", folder, runtime=runtime).status == 200
    assert server.get("/models/m").json["runtime"] == runtime


def test_another_runtime_is_a_400(server: Server, folder: Path) -> None:
    answer = server.load("m", folder, runtime="java")
    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert answer.message.startswith("Invalid RuntimeType value: java")


# --- name, manifest, url ------------------------------------------------------------------------------


def test_the_manifest_names_a_model_that_the_request_does_not(server: Server, folder: Path) -> None:
    path = manifested(folder.parent, model={"modelName": "from the manifest"})
    for body in ({"url": str(path)}, {"url": str(path), "model_name": ""}):
        assert by_json(server, json.dumps(body)).status == 200
        assert server.models() == ["from the manifest"]
        answer = by_json(server, json.dumps(body))
        assert answer.status == 409
        assert answer.message == "Model from the manifest is already registered."
        assert server.unload("from%20the%20manifest").status == 200


def test_a_model_that_nobody_names_is_a_400(server: Server, folder: Path) -> None:
    answer = by_query(server, url=folder)
    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
    assert answer.message.startswith("Model name is not defined.")
    answer = by_query(server, url=manifested(folder.parent, model={}))
    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
    assert answer.message.startswith("Model name is not defined.")
    assert server.models() == []


def test_a_name_in_a_manifest_that_no_request_could_address_is_a_400(server: Server, folder: Path) -> None:
    answer = by_query(server, url=manifested(folder.parent, model={"modelName": "m" * 9000}))
    assert answer.status == 400
    assert "at most 8000 can be addressed" in answer.message


def test_describe_has_the_fields_of_the_manifest_in_the_order_of_mms(server: Server, folder: Path) -> None:
    path = manifested(
        folder.parent,
        runtime="python3",
        model={"modelName": "m", "modelVersion": "1.5"},
        engine={"engineName": "MXNet"},
    )
    assert server.load("m", path).status == 200
    described = server.get("/models/m").json
    assert list(described) == [
        "modelName",
        "modelVersion",
        "modelUrl",
        "engine",
        "runtime",
        "minWorkers",
        "maxWorkers",
        "batchSize",
        "maxBatchDelay",
        "loadedAtStartup",
        "workers",
    ]
    assert (described["modelVersion"], described["engine"], described["runtime"]) == (
        "1.5",
        "MXNet",
        "python3",
    )


def archive(folder: Path, source: str = EVALUATE) -> Path:
    path = folder / "packed.mar"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("code/inference.py", source)
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "packed"}}))
    return path


def test_an_archive_is_unpacked_for_its_model_and_deleted_with_it(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    archive(tmp_path)
    with Server(MMEKIT_MODEL_STORE=str(tmp_path), TMPDIR=str(scratch)) as server:
        assert by_query(server, url="packed.mar").status == 200
        assert server.get("/models/packed").json["modelUrl"] == "packed.mar"
        where = Path(look(server, "packed", "sys.path[0]"))
        assert scratch in where.parents
        assert where.exists()
        assert server.unload("packed").status == 200
        assert not where.exists()
        assert (tmp_path / "packed.mar").exists()


def test_what_was_unpacked_for_a_load_that_fails_is_deleted(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    archive(tmp_path, "raise ValueError('not today')")
    with Server(MMEKIT_MODEL_STORE=str(tmp_path), TMPDIR=str(scratch)) as server:
        answer = by_query(server, url="packed.mar")
        assert answer.status == 500
        assert "not today" in answer.message
        assert not list(scratch.glob("*/*"))
        assert server.models() == []


def test_a_server_that_stops_deletes_what_it_unpacked(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    archive(tmp_path)
    with Server(MMEKIT_MODEL_STORE=str(tmp_path), TMPDIR=str(scratch)) as server:
        assert by_query(server, url="packed.mar").status == 200
        assert list(scratch.glob("mmekit-models-*"))
    assert not list(scratch.glob("mmekit-models-*"))


# --- outcomes -------------------------------------------------------------------------------------------


def test_without_workers_a_model_is_registered_and_loads_nothing(server: Server, folder: Path) -> None:
    path, gate = gated_model(folder.parent, "bare")
    answer = server.load("bare", path, initial_workers=0)
    assert status_text(answer) == (200, 'Model "bare" registered')
    described = server.get("/models/bare").json
    assert (described["minWorkers"], described["maxWorkers"], described["workers"]) == (0, 0, [])
    assert server.models() == ["bare"]
    answer = server.invoke("bare", "1")
    assert (answer.status, answer.json["type"]) == (503, "ServiceUnavailableException")
    assert answer.message.startswith("No worker is available to serve request for model: bare.")
    assert gate.begun == 0


def test_workers_that_were_asked_for_are_there_when_the_answer_comes(server: Server, folder: Path) -> None:
    assert status_text(server.load("m", folder, initial_workers=2)) == (200, "Workers scaled")
    described = server.get("/models/m").json
    assert (described["minWorkers"], described["maxWorkers"]) == (2, 2)
    assert len(workers(server, "m")) == 2


def test_a_load_in_the_background_is_answered_with_202_and_calls_wait_for_it(
    server: Server, folder: Path
) -> None:
    path, gate = gated_model(folder.parent, "later")
    answer = server.load("later", path, synchronous=False)
    assert status_text(answer) == (202, "Processing worker updates...")
    gate.wait_for_load()
    assert server.get("/models/later").json["workers"] == []
    assert server.models() == ["later"]
    assert server.load("later", path).status == 409
    call = server.later(server.invoke, "later", "6 * 7")
    assert server.get("/ping").status == 200
    assert not call.done()
    gate.open()
    assert (call.result().status, call.result().json) == (200, 42)
    assert gate.begun == 1


def test_a_background_load_that_fails_keeps_the_model_and_its_calls_get_the_error(
    server: Server, folder: Path
) -> None:
    path, gate = gated_model(folder.parent, "later")
    assert server.load("later", path, synchronous=False).status == 202
    gate.wait_for_load()
    call = server.later(server.invoke, "later", "1")
    until(lambda: call.running() or call.done())
    gate.fail()
    for answer in (call.result(), server.invoke("later", "1")):
        assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
        assert "ValueError: the gate said no" in answer.message
    assert server.models() == ["later"]
    gate.close()
    gate.open()
    assert look(server, "later", "1 + 1") == 2


@pytest.mark.parametrize(
    ("parameters", "status"),
    [({"url": "/nowhere"}, 404), ({"runtime": "lisp"}, 400), ({"batch_size": -1}, 400)],
)
def test_what_can_be_checked_at_once_is_answered_at_once_in_the_background_too(
    server: Server, folder: Path, parameters: dict[str, Any], status: int
) -> None:
    body = {"model_name": "later", "url": str(folder), "synchronous": False, **parameters}
    assert by_json(server, json.dumps(body)).status == status
    assert server.models() == []


def test_an_unload_while_a_load_runs_in_the_background_leaves_nothing(server: Server, folder: Path) -> None:
    path, gate = gated_model(folder.parent, "later")
    assert server.load("later", path, synchronous=False).status == 202
    gate.wait_for_load()
    unload = server.later(server.unload, "later")
    until(lambda: server.get("/models/later").status == 404)
    gate.open()
    assert unload.result().status == 200
    assert server.load("later", path).status == 200
    assert len(workers(server, "later")) == 1


def test_many_registrations_of_one_name_leave_one_model(server: Server, folder: Path) -> None:
    path = manifested(folder.parent, model={"modelName": "one"})
    calls = [
        server.later(by_query, server, url=path, synchronous=str(number % 2 == 0)) for number in range(12)
    ]
    statuses = sorted(call.result().status for call in calls)
    assert statuses[0] in (200, 202)
    assert statuses[1:] == [409] * 11
    assert server.models() == ["one"]
    assert look(server, "one", "2") == 2


# --- describe ---------------------------------------------------------------------------------------------


def test_ids_of_workers_are_their_own_and_stay(server: Server, folder: Path) -> None:
    path = code_model(folder.parent, "own")
    assert server.load("own", path, initial_workers=2).status == 200
    seen = workers(server, "own")
    assert len(set(seen)) == 2
    assert {int(each.partition("-")[2]) for each in seen} >= {look(server, "own", "os.getpid()")}
    assert workers(server, "own") == seen
    assert server.unload("own").status == 200
    assert server.load("own", path, initial_workers=2).status == 200
    assert not set(seen) & set(workers(server, "own"))


def test_the_memory_of_an_own_worker_is_what_it_uses_now(server: Server, folder: Path) -> None:
    assert server.load("own", code_model(folder.parent, "own")).status == 200

    def used() -> int:
        (worker,) = server.get("/models/own").json["workers"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", worker["startTime"])
        return int(worker["memoryUsage"])

    before = used()
    look(server, "own", "kept.append(b'x' * (30 << 20))")
    assert 29 << 20 <= used() - before < 40 << 20  # a page or two of the heap may have been trimmed
    assert look(server, "own", "kept.clear()") is None
    assert used() - before < 10 << 20


# --- unregister -------------------------------------------------------------------------------------------


def test_calls_that_outlive_the_unregister_timeout_are_ended_and_the_model_goes(tmp_path: Path) -> None:
    path = waiting_model(tmp_path, "stuck")
    with Server(MMEKIT_UNREGISTER_TIMEOUT_SECONDS="0.5") as server:
        assert server.load("other", code_model(tmp_path, "other")).status == 200
        assert server.load("stuck", path).status == 200
        pid = look(server, "stuck", "os.getpid()")
        begun, never = tmp_path / "begun", tmp_path / "never"
        expression = f"[open({str(begun)!r}, 'w').close(), wait({str(never)!r})]"
        running = server.later(server.invoke, "stuck", expression)
        until(begun.exists)
        waiting = server.later(server.invoke, "stuck", "1")
        answer = server.unload("stuck")
        assert status_text(answer) == (200, 'Model "stuck" unregistered')
        assert not exists(pid)
        ended = running.result()
        assert (ended.status, ended.json["type"]) == (500, "InternalServerException")
        assert ended.message.startswith("Worker died. ")
        assert "MMEKIT_UNREGISTER_TIMEOUT_SECONDS" in ended.message
        assert waiting.result().status in (404, 500)
        assert server.models() == ["other"]
        assert server.load("stuck", path).status == 200
        assert look(server, "stuck", "3") == 3


# --- loads that do not end well ---------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_model_whose_workers_end_as_fast_as_they_come_is_given_up(
    tmp_path: Path, synchronous: bool
) -> None:
    with Server() as server:
        answer = server.load("f", fleeting_model(tmp_path, "f"), initial_workers=2, synchronous=synchronous)
        if synchronous:
            assert answer.status == 500
            assert answer.message.startswith("Failed to start workers: f was loaded, but 3 of its workers")
            assert server.models() == []
        else:
            assert answer.status == 202
            until(lambda: server.logged("Model f has 1 of 2 workers: Failed to start workers"))
            assert "quarantined" in server.invoke("f").message
            assert server.unload("f").status == 200
        assert len((tmp_path / "f.order").read_text().split()) == 4
        assert server.load("f", code_model(tmp_path, "m")).status == 200
        assert look(server, "f", "1 + 1") == 2


@pytest.mark.parametrize("requests", [0, 1])
def test_unregistering_a_model_that_is_still_loaded_ends_its_load_when_time_is_up(
    tmp_path: Path, requests: int
) -> None:
    path, gate = gated_model(tmp_path, "m")
    with Server(MMEKIT_UNREGISTER_TIMEOUT_SECONDS="1") as server:
        before = server.family()
        assert server.load("m", path, synchronous=False, initial_workers=2).status == 202
        gate.wait_for_load()
        waiting = [server.later(server.invoke, "m", "1") for _ in range(requests)]
        until(lambda: f'mmekit_queue_requests{{model="m"}} {requests}.0' in server.get("/metrics").text)
        assert server.unload("m").status == 200
        assert [call.result().status for call in waiting] == [500] * requests
        assert server.models() == []
        assert server.told("Unload of m ends its calls and loads.")
        until(lambda: len(server.family()) <= len(before), what="the loading worker ending")
        assert gate.begun == 1
        gate.open()
        assert server.load("m", path).status == 200
        assert look(server, "m", "1 + 1") == 2


# --- parameters at work -----------------------------------------------------------------------------------


def test_a_response_timeout_is_in_seconds_in_json_and_in_minutes_in_the_query(
    server: Server, folder: Path
) -> None:
    path = waiting_model(folder.parent, "slow")
    never = str(folder.parent / "never")
    assert server.load("seconds", path, response_timeout=1).status == 200
    assert by_query(server, model_name="minutes", url=path, response_timeout=1).status == 200
    lasting = server.later(server.invoke, "minutes", f"wait({never!r})")
    answer = server.invoke("seconds", f"wait({never!r})")
    assert answer.status == 504
    assert "(the response_timeout that it was registered with)" in answer.message
    assert not lasting.done()
    Path(never).touch()
    assert lasting.result().status == 200


def test_the_queue_of_a_model_is_as_long_as_the_setting_says(tmp_path: Path) -> None:
    path, gate = gated_model(tmp_path, "m")
    with Server(SAGEMAKER_MODEL_JOB_QUEUE_SIZE="2") as server:
        assert server.load("m", path, synchronous=False).status == 202
        gate.wait_for_load()
        calls = [server.later(server.invoke, "m", "1") for _ in range(5)]
        until(lambda: sum(call.done() for call in calls) == 3)
        gate.open()
        assert sorted(call.result().status for call in calls) == [200, 200, 503, 503, 503]


def test_a_batch_size_alone_makes_no_request_wait(server: Server, folder: Path) -> None:
    """MMS would wait for 100 ms; a window of an hour would fail this test."""
    assert server.load("m", MODELS / "class_style", batch_size=8).status == 200
    described = server.get("/models/m").json
    assert (described["batchSize"], described["maxBatchDelay"]) == (8, 0)
    assert server.invoke("m", b"1").status == 200
