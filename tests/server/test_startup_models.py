"""Models that are loaded when the server starts: SageMaker's one, or those of MMS's ``load_models``."""

from __future__ import annotations

import json
import os
import socket
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.support.gated import gated_model, workers
from tests.support.looking import EVALUATE, code_model, look
from tests.support.server import MODELS, Server, until


def mms_server(folder: Path, *options: str, text: str = "", **environ: str) -> Server:
    """A server in MMS mode, with this config.properties, on one port."""
    config = folder / "config.properties"
    config.write_text(text)
    environ = {"SAGEMAKER_MULTI_MODEL": "", **environ}
    return Server("--mms-config", str(config), *options, **environ)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A model store with a folder, an archive that names itself and a folder that is no model."""
    store = tmp_path / "store"
    code_model(store, "a-folder")
    with zipfile.ZipFile(store / "packed.mar", "w") as packed:
        packed.writestr("code/inference.py", EVALUATE)
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": "itself"}}))
    (store / "no model").mkdir()
    return store


def test_all_loads_what_the_store_has_and_goes_on_after_what_it_cannot(tmp_path: Path, store: Path) -> None:
    text = f"model_store={store}\nload_models=ALL\ndefault_workers_per_model=1\n"
    with mms_server(tmp_path, text=text) as server:
        assert server.models() == ["a_folder", "itself"]
        for name in server.models():
            assert look(server, name, "2 * 3") == 6
            described = server.get(f"/models/{name}").json
            assert described["loadedAtStartup"] is True
            assert (described["minWorkers"], len(described["workers"])) == (1, 1)
        (line,) = server.told("The server starts without the model no_model")
        assert line["level"] == "WARNING"


def test_a_list_names_models_and_the_option_wins_over_the_file(tmp_path: Path, store: Path) -> None:
    text = f"model_store={store}\nload_models=nothing-here\ndefault_workers_per_model=2\n"
    with mms_server(tmp_path, "--models", "given=a-folder,packed.mar,missing.mar", text=text) as server:
        assert server.models() == ["given", "itself"]
        assert len(workers(server, "given")) == 2
        assert server.get("/models/given").json["modelUrl"] == "a-folder"
        assert server.told("The server starts without the model missing")


def test_a_name_in_the_store_that_is_not_utf_8_is_left_out(tmp_path: Path, store: Path) -> None:
    os.mkdir(os.fsencode(store) + b"/caf\xe9")
    text = f"model_store={store}\nload_models=ALL\ndefault_workers_per_model=1\n"
    with mms_server(tmp_path, text=text) as server:
        assert server.models() == ["a_folder", "itself"]
        (line,) = server.told("The server starts without the model caf_")
        assert "Expected a path in UTF-8; rename what is not." in line["message"]


def _with_defect(folder: Path) -> str:
    """Return a folder for PYTHONPATH that has a server fail, in a way nobody expects, on one model."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import sys
            if "serve" in sys.orig_argv:
                from mmekit import requirements
                check = requirements.check
                def failing(found):
                    return check(found) if "a-folder" not in str(found.path) else 1 / 0
                requirements.check = failing
        """)
    )
    return str(folder)


def test_a_model_that_the_server_itself_fails_on_is_left_out(tmp_path: Path, store: Path) -> None:
    text = f"model_store={store}\nload_models=ALL\ndefault_workers_per_model=1\n"
    with mms_server(tmp_path, text=text, PYTHONPATH=_with_defect(tmp_path / "defect")) as server:
        assert server.models() == ["itself"]
        (line,) = server.told("The server starts without the model a_folder")
        assert line["level"] == "ERROR"
        assert "ZeroDivisionError" in line["message"]


def test_a_server_that_fails_on_its_one_model_ends_in_order(tmp_path: Path) -> None:
    base = tmp_path / "a-folder"
    code_model(base, "model")
    defect = _with_defect(tmp_path / "defect")
    server = Server(SAGEMAKER_MULTI_MODEL="", SAGEMAKER_BASE_DIR=str(base), PYTHONPATH=defect)
    server.start(ready=False)
    try:
        assert server.wait() == 1
        assert "ZeroDivisionError" in server.told("The server failed at its start.")[0]["message"]
        assert server.told("Stopping: ")
    finally:
        server.close()


def test_without_a_number_of_workers_there_is_one_for_each_gpu(tmp_path: Path, store: Path) -> None:
    text = f"model_store={store}\nload_models=a-folder\n"
    with mms_server(tmp_path, text=text, MMEKIT_NUMBER_OF_GPU="3") as server:
        described = server.get("/models/a_folder").json
        assert [worker["gpu"] for worker in described["workers"]] == [True] * 3
        assert (described["minWorkers"], described["maxWorkers"]) == (3, 3)


def test_without_a_number_of_workers_there_is_one_for_each_cpu(tmp_path: Path, store: Path) -> None:
    with mms_server(tmp_path, text=f"model_store={store}\nload_models=a-folder\n") as server:
        described = server.get("/models/a_folder").json
        assert len(described["workers"]) == described["minWorkers"] >= 1
        assert server.load("later", "a-folder").json == {"status": 'Model "later" registered'}
        assert server.get("/models/later").json["loadedAtStartup"] is False


def test_ping_is_503_until_the_models_of_the_start_are_loaded(tmp_path: Path) -> None:
    _, gate = gated_model(tmp_path / "store", "slow")
    text = f"model_store={tmp_path / 'store'}\nload_models=slow\ndefault_workers_per_model=1\n"
    server = mms_server(tmp_path, text=text)
    try:
        server.start(ready=False)
        gate.wait_for_load()
        answer = server.get("/ping")
        assert (answer.status, answer.json) == (503, {"status": "Unhealthy"})
        assert server.load("slow", "slow").status == 409
        gate.open()
        until(lambda: server.get("/ping").status == 200)
        assert server.models() == ["slow"]
    finally:
        gate.open()
        server.close()


def test_a_server_without_models_to_load_starts_empty(tmp_path: Path) -> None:
    with mms_server(tmp_path) as server:
        assert server.models() == []
        answer = server.load("m", "/anything")
        assert answer.status == 404
        assert answer.message.startswith("Model store has not been configured.")


def test_invocations_go_to_the_only_model_of_the_start_or_the_only_model(tmp_path: Path, store: Path) -> None:
    text = f"model_store={store}\nload_models=a-folder\ndefault_workers_per_model=1\n"
    with mms_server(tmp_path, text=text) as server:

        def invoked(query: str = "") -> tuple[int, str]:
            answer = server.request("POST", f"/invocations{query}", "sys.path[0]")
            return answer.status, answer.text

        first = invoked()
        assert first[0] == 200
        assert server.load("other", "packed.mar").status == 200
        assert invoked() == first
        assert invoked("?model_name=other")[1] != first[1]
        assert server.unload("a_folder").status == 200
        assert invoked() == invoked("?model_name=other")
        assert server.load("third", "packed.mar").status == 200
        status, text_ = invoked()
        assert status == 400
        assert json.loads(text_)["message"] == "Parameter model_name is required."


def test_the_one_model_of_sagemaker_is_there_when_ping_is_200(tmp_path: Path) -> None:
    code_model(tmp_path, "model")
    with Server(SAGEMAKER_MULTI_MODEL="", SAGEMAKER_BASE_DIR=str(tmp_path)) as server:
        assert server.get("/models/model").json["loadedAtStartup"] is True
        assert server.request("POST", "/invocations", "7").text == "7"


def test_a_server_whose_one_model_fails_ends(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(MODELS / "raises_on_load")
    server = Server(SAGEMAKER_MULTI_MODEL="", SAGEMAKER_BASE_DIR=str(tmp_path))
    server.start(ready=False)
    try:
        assert server.wait() == 1
        assert server.told("cannot be loaded")
    finally:
        server.close()


def test_a_stop_while_models_of_the_start_are_loaded_ends_in_order(tmp_path: Path) -> None:
    _, gate = gated_model(tmp_path / "store", "slow")
    text = f"model_store={tmp_path / 'store'}\nload_models=slow\ndefault_workers_per_model=1\n"
    server = mms_server(tmp_path, text=text)
    server.start(ready=False)
    gate.wait_for_load()
    server.close()
    assert server.process is not None
    assert server.process.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
