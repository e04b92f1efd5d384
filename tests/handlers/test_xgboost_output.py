"""``SAGEMAKER_INFERENCE_OUTPUT``: the values are those of AWS's tests (XGB: test_serve_utils.py)."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from mmekit.errors import NotAcceptable
from mmekit_handlers.xgboost_output import select, selected_names
from tests.support.xgboost_models import MULTI_MODEL, Served, csv_of, data, save, train

ALL = "predicted_label,labels,probability,probabilities,raw_score,raw_scores,predicted_score"


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        (None, ()),
        ("", ()),
        ("predicted_label", ("predicted_label",)),
        (" Predicted_Label , probabilities,", ("predicted_label", "probabilities")),
    ],
)
def test_names_are_read_as_aws_reads_them(setting: str | None, names: tuple[str, ...]) -> None:
    assert selected_names(setting) == names


@pytest.mark.parametrize(
    ("objective", "predictions", "expected"),
    [
        ("reg:squarederror", [0.5, -7.0], [{"predicted_score": 0.5}, {"predicted_score": -7.0}]),
        ("rank:pairwise", [2.0], [{"predicted_score": 2.0}]),
        (
            "binary:logistic",
            [0.75, 0.25],
            [
                {
                    "predicted_label": 1,
                    "labels": [0, 1],
                    "probability": 0.75,
                    "probabilities": [0.25, 0.75],
                    "raw_score": 0.75,
                    "raw_scores": [0.25, 0.75],
                },
                {
                    "predicted_label": 0,
                    "labels": [0, 1],
                    "probability": 0.25,
                    "probabilities": [0.75, 0.25],
                    "raw_score": 0.25,
                    "raw_scores": [0.75, 0.25],
                },
            ],
        ),
        (
            "binary:logitraw",
            [-7.5],
            [{"predicted_label": 0, "labels": [0, 1], "raw_score": -7.5, "raw_scores": [8.5, -7.5]}],
        ),
        (
            "binary:hinge",
            [1.0],
            [{"predicted_label": 1.0, "labels": [0, 1], "raw_score": 1.0, "raw_scores": [0.0, 1.0]}],
        ),
        (
            "multi:softmax",
            [2.0],
            [{"predicted_label": 2.0, "labels": [0, 1, 2], "raw_score": 2.0, "raw_scores": [-1.0, 2.0]}],
        ),
        (
            "multi:softprob",
            [[0.125, 0.5, 0.375]],
            [
                {
                    "predicted_label": 1,
                    "labels": [0, 1, 2],
                    "probability": 0.5,
                    "probabilities": [0.125, 0.5, 0.375],
                    "raw_score": 0.5,
                    "raw_scores": [0.125, 0.5, 0.375],
                }
            ],
        ),
    ],
)
def test_each_objective_has_the_values_that_aws_gives(objective: str, predictions, expected) -> None:
    names = ALL.split(",")
    selected = select(np.array(predictions), names, objective, 3 if objective.startswith("multi:") else 0)
    assert selected == [{name: row.get(name) for name in names} for row in expected]


@pytest.fixture(params=[MULTI_MODEL, {}], ids=["multi-model", "single-model"])
def environ(request: pytest.FixtureRequest) -> dict[str, str]:
    return {**request.param, "SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,probabilities,predicted_score"}


@pytest.fixture
def classifier(tmp_path: Path) -> xgb.Booster:
    booster = train("binary:logistic")
    save(booster, tmp_path / "xgboost-model")
    return booster


def test_answers_are_written_in_both_modes(environ, classifier, tmp_path: Path, caplog) -> None:
    rows = data()[0][:2]
    chances = classifier.predict(xgb.DMatrix(rows, nthread=1)).tolist()
    answers = [
        {"predicted_label": int(p > 0.5), "probabilities": [1 - p, p], "predicted_score": None}
        for p in chances
    ]
    with caplog.at_level(logging.WARNING):
        model = Served(tmp_path, environ)
    assert "selects predicted_score, which binary:logistic does not have: they will be null" in caplog.text
    body, _ = model.ask(csv_of(rows), accept="application/json")
    assert json.loads(body) == {"predictions": answers}
    body, _ = model.ask(csv_of(rows), accept="application/jsonlines")
    assert [json.loads(line) for line in body.splitlines()] == answers
    body, _ = model.ask(csv_of(rows), accept="text/csv")
    assert body.decode() == "\n".join(
        f'{answer["predicted_label"]},"{answer["probabilities"]}",nan' for answer in answers
    )
    batch = Served(tmp_path, {**environ, "SAGEMAKER_BATCH": "true"})
    assert batch.ask(csv_of(rows), accept="text/csv")[0] == body + b"\n"


def test_several_classes_and_scores_of_a_real_model(tmp_path: Path) -> None:
    booster = train("multi:softprob", num_class=3)
    save(booster, tmp_path / "xgboost-model")
    model = Served(tmp_path, {"SAGEMAKER_INFERENCE_OUTPUT": "predicted_label,labels,probability"})
    rows = data()[0][:4]
    chances = booster.predict(xgb.DMatrix(rows, nthread=1))
    answers = json.loads(model.ask(csv_of(rows), accept="application/json")[0])["predictions"]
    assert [answer["predicted_label"] for answer in answers] == chances.argmax(axis=1).tolist()
    assert [answer["labels"] for answer in answers] == [[0, 1, 2]] * 4
    assert all(math.isclose(a["probability"], c) for a, c in zip(answers, chances.max(axis=1), strict=True))


def test_npy_has_no_place_for_names(environ, classifier, tmp_path: Path) -> None:
    with pytest.raises(
        NotAcceptable, match="this model can answer with application/json, text/csv, application"
    ):
        Served(tmp_path, environ).ask(csv_of(data()[0][:1]), accept="application/x-npy")
