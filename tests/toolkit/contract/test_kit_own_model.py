"""The kit with a person's own model in place of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost

from tests.toolkit.contract.kit_runs import SERVE, Result, contract

CLAUSES = (
    "load",
    "load-failure-answered",
    "load-failure-retryable",
    "load-concurrent",
    "list-one",
    "invoke",
    "invoke-concurrent",
    "content-types",
    "custom-attributes",
    "target-header-ignored",
    "payload-6-mib",
    "answer-6-mib",
    "models-read-only",
    "unload-frees-memory",
    "sigterm",
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("churn") / "churn-model"
    folder.mkdir()
    rows = np.random.default_rng(7).normal(size=(100, 4))
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(rows, label=rows[:, 0]), 5)
    booster.save_model(folder / "model.ubj")
    (folder / "model.ubj").chmod(0o600)
    (folder.parent / "payload.csv").write_text("0.1,0.2,0.3,0.4\n")
    return folder


@pytest.fixture(scope="session")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    payload = model.parent / "payload.csv"
    options = (f"--model={model}", f"--payload={payload}", "--accept=application/json")
    return contract(tmp_path_factory.mktemp("run"), *options, *SERVE, clauses=CLAUSES)


def test_a_real_model_is_served_by_the_same_clauses(run: Result) -> None:
    assert run.code == 0, run.output
    skipped = {"answer-6-mib", "unload-frees-memory"}
    assert run.verdicts == {name: "skipped" if name in skipped else "passed" for name in run.verdicts}
    assert set(run.verdicts) == set(CLAUSES)


def test_what_only_the_kits_model_can_tell_is_said(run: Result) -> None:
    assert "only the kit's own model can tell" in run.clause("answer-6-mib")["reason"]
    assert "only the kit's own model can tell" in run.clause("custom-attributes")["reason"]
    assert run.clause("content-types")["reason"] == "as --content-type and --accept say"
    assert "too little to tell whether it is free again" in run.clause("unload-frees-memory")["reason"]


def test_the_persons_files_are_left_as_they_were(run: Result, model: Path) -> None:
    assert [path.name for path in model.iterdir()] == ["model.ubj"]
    stat = (model / "model.ubj").stat()
    assert (stat.st_mode & 0o777, stat.st_nlink) == (0o600, 1)


def test_a_model_that_the_server_cannot_serve_is_told(model: Path, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text('{"what": "is this"}')
    result = contract(tmp_path, f"--model={model}", f"--payload={payload}", *SERVE, clauses=("load",))
    assert result.code == 1
    assert "the load was answered with 200, and the invocation with 4" in result.remarks
    assert "answers the bytes of --payload with 2xx" in result.remarks


@pytest.mark.parametrize("missing", ["model", "payload"])
def test_files_that_are_not_there_are_named(model: Path, tmp_path: Path, missing: str) -> None:
    given = {"model": str(model), "payload": str(model.parent / "payload.csv")}
    given[missing] = f"{tmp_path}/nothing"
    result = contract(tmp_path, *(f"--{name}={value}" for name, value in given.items()), *SERVE)
    assert result.code == 7
    assert f"{tmp_path}/nothing" in result.remarks
