"""Small XGBoost models in each file format, and a served model to ask."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xgboost as xgb

from mmekit_handlers.base import Response
from mmekit_handlers.functions import UserFunctions
from mmekit_handlers.transformer import Transformer
from mmekit_handlers.xgboost import XGBoostHandler

MULTI_MODEL = {"SAGEMAKER_MULTI_MODEL": "true"}


@dataclass
class Request:
    body: bytes = b""
    content_type: str | None = "text/csv"
    accept: str | None = None
    custom_attributes: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Context:
    request: Request = field(default_factory=Request)
    system_properties: Mapping[str, Any] = field(default_factory=dict)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        return 200, ""

    def get_response_headers(self, idx: int) -> Mapping[str, str]:
        return {}


class Served:
    """A model folder behind the request cycle, as in a worker."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str] | None = None, code: ModuleType | None = None
    ) -> None:
        environ = MULTI_MODEL if environ is None else environ
        functions = UserFunctions.of(code) if code else None
        self.transformer = Transformer(
            XGBoostHandler(environ),
            functions,
            str(folder),
            lambda request: Context(request or Request()),
            environ,
        )

    def ask(
        self, body: bytes, content_type: str | None = "text/csv", accept: str | None = None
    ) -> tuple[bytes, str | None]:
        """Return body and type of the answer; raises what the request raised."""
        (outcome,) = self.transformer([Request(body, content_type, accept)])
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome.body, bytes)
        return outcome.body, outcome.content_type

    def ask_all(self, requests: list[Request]) -> list[Response | Exception]:
        return self.transformer(requests)


def train(objective: str = "reg:squarederror", rows: int = 120, rounds: int = 4, **more: Any) -> xgb.Booster:
    """Train on four columns of which the second has gaps."""
    names = more.pop("feature_names", None)
    types = more.pop("feature_types", None)
    x, y = data(objective, rows)
    matrix = xgb.DMatrix(x, y, feature_names=names, feature_types=types, nthread=1, enable_categorical=True)
    if objective.startswith("rank:"):
        matrix.set_group([rows // 4] * 4)
    if objective == "survival:aft":
        matrix.set_float_info("label_lower_bound", y)
        matrix.set_float_info("label_upper_bound", y + 1)
    settings = {"objective": objective, "nthread": 1, "max_depth": 3, "eta": 0.5, "seed": 1, **more}
    return xgb.train({name: value for name, value in settings.items() if value is not None}, matrix, rounds)


def data(objective: str = "reg:squarederror", rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(rows, 4)).round(3)
    x[::7, 1] = np.nan
    score = x[:, 0] + np.nan_to_num(x[:, 1]) * x[:, 2]
    if objective.startswith("multi:"):
        return x, np.digitize(score, [-0.5, 0.5]).astype(float)
    if objective.startswith(("binary:", "rank:")):
        return x, (score > 0).astype(float)
    return x, np.abs(score) + 0.1


def save(booster: Any, path: Path, file_format: str = "ubj") -> None:
    """Write a booster, or a pickle of anything, under any name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old binary format is deprecated
        raw = pickle.dumps(booster) if file_format == "pickle" else bytes(booster.save_raw(file_format))
    path.write_bytes(raw)


def csv_of(rows: np.ndarray) -> bytes:
    """Write rows with empty fields for what is missing."""
    lines = (",".join("" if np.isnan(value) else repr(float(value)) for value in row) for row in rows)
    return "\n".join(lines).encode()


def libsvm_of(rows: np.ndarray, first: int = 0) -> bytes:
    """Write a label and what is not missing."""
    lines = (
        " ".join(
            ["1", *(f"{i + first}:{float(value)!r}" for i, value in enumerate(row) if not np.isnan(value))]
        )
        for row in rows
    )
    return "\n".join(lines).encode()
