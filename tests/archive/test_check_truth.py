"""What the checker calls a fault the server does not load, and what it passes the server loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.archive.models import (
    checked,
    faults,
    folder,
    joblib_bytes,
    sklearn_bytes,
    tar_gz,
    told,
    xgboost_bytes,
)
from tests.support.server import Server

UBJ, PKL = xgboost_bytes(), sklearn_bytes()
OWN = b"\x80\x02cmy_features\nScaler\n)\x81."
SCALER = "class Scaler:\n    def predict(self, rows):\n        return [1] * len(rows)\n"
SAMPLE = {"MAR-INF/sample-request": "1,2,3,4\n"}


def described(**fields: object) -> dict[str, bytes | str]:
    return {**SAMPLE, "MAR-INF/sample-request.json": json.dumps({"contentType": "text/csv", **fields})}


def manifest(handler: str) -> dict[str, bytes | str]:
    return {"MAR-INF/MANIFEST.json": json.dumps({"model": {"modelName": "m", "handler": handler}})}


RUNS = "def model_fn(path): ...\ndef transform_fn(*request): ...\n"
SERVICE = "class Service:\n    def handle(self, data, context): ...\n"

#: Name → files of a model, and whether it is to be loaded.
CASES: dict[str, tuple[dict[str, bytes | str], bool]] = {
    "xgboost": ({"model.ubj": UBJ}, True),
    "scikit-learn": ({"model.pkl": PKL}, True),
    "unread": ({"model.pkl": PKL, "train.csv": "1,2", "code/helper.py": "x = 1"}, True),
    "warm-up": ({"model.ubj": UBJ, **described(warmUp=1)}, True),
    "sample of three columns": (
        {"model.ubj": UBJ, **described(warmUp=1), "MAR-INF/sample-request": "1,2,3\n"},
        False,
    ),
    "description that is broken": ({"model.ubj": UBJ, **described(warmUp="yes")}, False),
    "several files": ({"a.pkl": PKL, "b.pkl": PKL}, False),
    "several frameworks": ({"model.ubj": UBJ, "model.pkl": PKL}, False),
    "two boosters": ({"a.ubj": UBJ, "b.ubj": UBJ}, True),
    "another file for xgboost": ({"model.ubj": UBJ, "weights.dat": "x" * 100}, False),
    "nested": ({"churn/model.ubj": UBJ}, False),
    "nothing": ({"notes.txt": "x"}, False),
    "cut": ({"model.pkl": PKL[:-50]}, False),
    "cut booster": ({"model.ubj": b"x" + UBJ[1:]}, False),
    "booster without its end": ({"model.ubj": UBJ[:-40]}, False),
    "empty file": ({"model.ubj": b""}, False),
    "class of a script": ({"model.pkl": b"\x80\x02c__main__\nScaler\n)\x81."}, False),
    "own class without a program": ({"model.pkl": OWN, "code/my_features.py": SCALER}, False),
    "own class with a program": (
        {
            "model.pkl": OWN,
            "code/my_features.py": SCALER,
            "code/inference.py": "def predict_fn(data, model):\n    return model.predict(data)\n",
        },
        True,
    ),
    "syntax": ({"code/inference.py": "def model_fn(:\n"}, False),
    "manifest": ({"model.ubj": UBJ, "MAR-INF/MANIFEST.json": '{"runtime": "java"}'}, False),
    "syntax of what nobody imports": (
        {"code/inference.py": RUNS, "code/old.py": "print 1\n"},
        True,
    ),
    "syntax of what is imported": (
        {"code/inference.py": "import old\n" + RUNS, "code/old.py": "print 1\n"},
        False,
    ),
    "relative import": ({"code/inference.py": "from . import helper\n" + RUNS, "code/helper.py": ""}, False),
    "empty program": ({"code/inference.py": "# to do\n"}, False),
    "functions from another module": (
        {"code/inference.py": "from helper import *\n", "code/helper.py": RUNS},
        True,
    ),
    "handler without its function": (
        {**manifest("service:no"), "service.py": "def handle(d, c): ...\n"},
        False,
    ),
    "handler's class": ({**manifest("service:no"), "service.py": SERVICE}, True),
    "dict for an estimator": ({"model.pkl": b"\x80\x04}."}, False),
    "dict that the model's code predicts with": (
        {"model.pkl": b"\x80\x04}.", "code/inference.py": "def predict_fn(data, model): ...\n"},
        True,
    ),
    "array for an estimator": ({"model.joblib": joblib_bytes(np.zeros(3))}, False),
    "skops that is none": ({"model.skops": PKL}, False),
    "PyTorch's suffix in capitals": ({"model.PT": b"PK\3\4"}, False),
    "what XGBoost takes for a model": ({"model.ubj": UBJ, "Thumbs.db": "x"}, False),
    "columns between semicolons": (
        {"model.ubj": UBJ, **described(warmUp=1), "MAR-INF/sample-request": "1;2;3;4\n"},
        True,
    ),
    "requirements that are none": ({"model.ubj": UBJ, "requirements.txt": "a b"}, False),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(MMEKIT_WORKERS="1") as started:
        yield started


@pytest.mark.parametrize("name", CASES)
def test_the_server_does_as_the_check_says(server: Server, tmp_path: Path, name: str) -> None:
    files, is_loaded = CASES[name]
    path = folder(tmp_path / "m", files)  # as SageMaker unpacks an archive
    of_archive = checked(tar_gz(tmp_path / "m.tar.gz", files))
    of_folder = checked(path)
    answer = server.load("m", path)
    server.unload("m")
    assert (answer.status == 200) is is_loaded, answer.body
    assert (faults(of_archive) == set()) is is_loaded, of_archive.findings
    assert faults(of_folder) == faults(of_archive)


@pytest.mark.parametrize(
    "files",
    [
        {"model.pkl": b"\x80\x02cno_such_module\nX\n)\x81."},
        {"model.ubj": UBJ, "requirements.txt": "no-such-package"},
        manifest("no_such_module:handle"),
        manifest("service.py:handle"),
    ],
    ids=["module", "requirement", "handler", "handler's file"],
)
def test_what_only_an_image_can_tell_is_a_warning_here(
    server: Server, tmp_path: Path, files: dict[str, bytes | str]
) -> None:
    report = checked(folder(tmp_path / "m", files))
    assert (faults(report), len(told(report))) == (set(), 1)
    assert server.load("m", tmp_path / "m").status == 500


def test_the_estimate_is_the_servers_first_guess(tmp_path: Path) -> None:
    from mmekit.needs import Subject, sizes_by_suffix
    from mmekit.server.estimates import Estimator

    path = folder(tmp_path / "m", {"model.json": xgboost_bytes("json"), "noise.json": "{}" + " " * 5_000_000})
    subject = Subject("", "mmekit_handlers.xgboost:XGBoostHandler", False, sizes_by_suffix(str(path)))
    assert checked(path).sizes.memory_bytes == Estimator().estimate(subject).memory_bytes
