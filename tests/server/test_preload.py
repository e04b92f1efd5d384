"""Frameworks are imported and warmed up once, in the template; workers find them ready and reseeded."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sklearn.linear_model
import torch

from tests.support.looking import code_model, look, looking_environ
from tests.support.pytorch import save_torchscript
from tests.support.server import Server, plain_model
from tests.support.xgboost_models import save, train

#: A program that only looks: models in the same worker are served by the built-in handlers.
LOOK = {"handler": "evaluate:handle"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    environ = looking_environ(MMEKIT_PRELOAD="auto", MMEKIT_WORKERS="1", OMP_NUM_THREADS="2")
    del environ["SAGEMAKER_HANDLER"]
    with Server(**environ) as server:
        yield server


def _xgboost(folder: Path) -> Path:
    folder.mkdir()
    save(train(), folder / "xgboost-model")
    return folder


def _sklearn(folder: Path) -> Path:
    folder.mkdir()
    model = sklearn.linear_model.LinearRegression().fit(np.eye(4), [1, 2, 3, 4])
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return folder


def _pytorch(folder: Path) -> Path:
    folder.mkdir()
    save_torchscript(torch.nn.Linear(4, 2), folder / "model.pt")
    return folder


@pytest.mark.parametrize("make", [_xgboost, _sklearn, _pytorch])
def test_a_workers_first_load_and_prediction_import_no_framework(
    server: Server, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    frameworks = ("numpy", "scipy", "sklearn", "xgboost", "torch", "pandas", "joblib", "mmekit_handlers")
    modules = f"[n for n in sys.modules if n.partition('.')[0] in {frameworks}]"
    path = make(tmp_path / "m")
    (path / "code").mkdir()  # with a program of its own it has a worker that was forked for it
    (path / "code" / "inference.py").write_text(
        "import json, sys\n"
        f"before = {modules}\n"
        "def output_fn(prediction, accept):\n"
        f"    return json.dumps(sorted(set({modules}) - set(before))), 'application/json'\n"
    )
    name = f"first-{make.__name__}"
    answer = server.load(name, path)
    assert answer.status == 200, answer.body
    answer = server.invoke(name, "1,2,3,4", "text/csv")
    assert answer.status == 200, answer.body
    assert answer.json == []
    assert server.unload(name).status == 200


def test_workers_draw_different_numbers_from_numpy_and_torch(server: Server, tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "two"):
        assert server.load(name, code_model(tmp_path, name)).status == 200
        draw = "[sys.modules['numpy'].random.rand(), sys.modules['torch'].rand(1).item(), random.random()]"
        drawn.append(look(server, name, draw))
        server.unload(name)
    assert all(first != second for first, second in zip(*drawn, strict=True))


def test_after_all_imports_and_first_predictions_the_template_has_one_thread(server: Server) -> None:
    assert len(list(Path(f"/proc/{server.template_pid()}/task").iterdir())) == 1


def test_the_users_threads_are_set_in_torch(server: Server, tmp_path: Path) -> None:
    assert server.load("threads", code_model(tmp_path, "threads")).status == 200
    assert look(server, "threads", "sys.modules['torch'].get_num_threads()") == 2
    assert look(server, "threads", "os.environ['OMP_NUM_THREADS']") == "2"
    server.unload("threads")


def test_a_collection_in_a_worker_leaves_the_shared_memory_alone(server: Server, tmp_path: Path) -> None:
    """Without gc.freeze one full collection writes into every shared page: 37 MiB."""
    assert server.load("tidy", code_model(tmp_path, "tidy")).status == 200
    lines = "open('/proc/self/smaps_rollup')"
    private = f"sum(int(line.split()[1]) for line in {lines} if line.startswith('Private_Dirty'))"
    grown = look(server, "tidy", f"(lambda before: (gc.collect(), {private} - before)[1])({private})")
    assert grown < 8 * 1024, f"{grown} KiB became private"
    assert look(server, "tidy", "gc.get_freeze_count()") > 50_000
    server.unload("tidy")


def test_small_models_of_a_framework_share_a_worker_and_cost_little(server: Server, tmp_path: Path) -> None:
    names = [f"small-{number}" for number in range(6)]
    for name in names:
        assert server.load(name, _xgboost(tmp_path / name)).status == 200
    described = [server.get(f"/models/{name}").json["workers"] for name in names]
    assert len({worker["id"] for (worker,) in described}) == 1
    assert sorted(worker["memoryUsage"] for (worker,) in described)[3] < 1.5 * 1024 * 1024
    for name in names:
        server.unload(name)


def test_the_garbage_of_parsing_goes_back_after_a_load(server: Server, tmp_path: Path) -> None:
    """A JSON model is parsed into a tree of ten times its size; malloc_trim gives that back."""
    folder = tmp_path / "json"
    folder.mkdir()
    save(train(rounds=3000, rows=400), folder / "model.json", "json")
    size = (folder / "model.json").stat().st_size
    assert size > 1_000_000
    assert server.load("json", folder).status == 200
    (worker,) = server.get("/models/json").json["workers"]
    assert 0 < worker["memoryUsage"] < 4 * size
    server.unload("json")


def test_a_model_with_a_named_handler_of_the_image_shares_with_built_in_ones(
    server: Server, tmp_path: Path
) -> None:
    """Which handler serves a model does not decide which worker it gets."""
    assert server.load("eye", plain_model(tmp_path, "eye"), **LOOK).status == 200
    assert server.load("beside", _xgboost(tmp_path / "beside")).status == 200
    ids = [server.get(f"/models/{name}").json["workers"][0]["id"] for name in ("eye", "beside")]
    assert ids[0] == ids[1]
    for name in ("eye", "beside"):
        server.unload(name)
