"""What ``SAGEMAKER_INFERENCE_OUTPUT`` selects: labels, probabilities and scores from XGBoost's predictions.

Names, values and the choice by objective are those of AWS's container (XGB: algorithm_mode/serve_utils.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import orjson

from mmekit_handlers.table import Array

#: One answer: a value or a list for each selected name; None for a name that its objective does not have.
Selected: TypeAlias = dict[str, Any]

_BINARY = ("binary:logistic", "binary:logitraw", "binary:hinge")
#: Objectives whose prediction is a class, not a score: they are voted on, not averaged.
LABEL_OBJECTIVES = ("multi:softmax", "binary:hinge")


def selected_names(setting: str | None) -> tuple[str, ...]:
    """Return the names in the setting, in order; none when it is not set."""
    if setting is None:
        return ()
    return tuple(name for name in setting.replace(" ", "").lower().split(",") if name)


def select(predictions: Array, names: Sequence[str], objective: str, classes: int) -> list[Selected]:
    """Return one dict a row. ``predictions`` is ``(rows,)`` or ``(rows, classes)`` as XGBoost gives it.

    A name that is unknown, or that the objective does not have, is None.
    """
    known = _values_of(objective, classes)
    chosen = [(name, known.get(name)) for name in names]
    rows = predictions.tolist()
    return [{name: None if value is None else value(row) for name, value in chosen} for row in rows]


def unavailable(names: Sequence[str], objective: str, classes: int) -> list[str]:
    """Return the names that will be None for every row."""
    known = _values_of(objective, classes)
    return [name for name in names if name not in known]


def write_selected_csv(answers: Sequence[Selected], final_newline: bool) -> bytes:
    """Write one line a row; a list is quoted, as in ``1,"[0.4, 0.6]"``, and what is not there is ``nan``."""
    lines = "\n".join(",".join(_csv_field(value) for value in answer.values()) for answer in answers)
    return (lines + "\n" if final_newline else lines).encode()


def write_selected_json(answers: Sequence[Selected]) -> bytes:
    """Write ``{"predictions": [...]}``; what is not there is null, since NaN is not JSON."""
    return orjson.dumps({"predictions": answers})


def write_selected_jsonlines(answers: Sequence[Selected]) -> bytes:
    """Write one object a line."""
    return b"".join(orjson.dumps(answer) + b"\n" for answer in answers)


def _csv_field(value: Any) -> str:
    if isinstance(value, list):
        return f'"{value}"'
    return "nan" if value is None else str(value)


def _values_of(objective: str, classes: int) -> dict[str, Callable[[Any], Any]]:
    """Return what each name means for one row's prediction; names that mean nothing are not there."""
    if objective == "multi:softprob":
        return {
            "predicted_label": lambda row: row.index(max(row)),
            "labels": lambda row: list(range(classes)),
            "probability": max,
            "probabilities": list,
            "raw_score": max,
            "raw_scores": list,
        }
    if objective not in (*_BINARY, "multi:softmax"):
        # AWS has five regressions here and refuses all else; one score a row means the same for every other.
        return {"predicted_score": lambda row: row}
    values: dict[str, Callable[[Any], Any]] = {
        "predicted_label": _label_of(objective),
        "labels": lambda row: [0, 1] if objective in _BINARY else list(range(classes)),
        "raw_score": lambda row: row,
        "raw_scores": _both,
    }
    if objective == "binary:logistic":
        values |= {"probability": lambda row: row, "probabilities": _both}
    return values


def _label_of(objective: str) -> Callable[[float], float]:
    if objective in LABEL_OBJECTIVES:
        return lambda row: row
    threshold = 0.5 if objective == "binary:logistic" else 0.0
    return lambda row: int(row > threshold)


def _both(row: float) -> list[float]:
    return [1.0 - row, row]
