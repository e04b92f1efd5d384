"""Small real models for the checker, and archives of them."""

from __future__ import annotations

import io
import pickle
import tarfile
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import xgboost as xgb
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmekit_toolkit.archive.check import Order, check
from mmekit_toolkit.archive.findings import Level
from mmekit_toolkit.archive.report import Report

NAMES = ["age", "income", "visits", "größe"]


@cache
def table() -> tuple[pd.DataFrame, np.ndarray]:
    x = pd.DataFrame(np.random.default_rng(1).random((200, 4)), columns=NAMES)
    return x, (x.age > 0.5).to_numpy().astype(int)


@cache
def booster(named: bool = True) -> xgb.Booster:
    x, y = table()
    data = xgb.DMatrix(x if named else x.to_numpy(), y, nthread=1)
    return xgb.train({"nthread": 1, "objective": "binary:logistic"}, data, 3)


@cache
def pipeline() -> Any:
    x, y = table()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)


def xgboost_bytes(form: str = "ubj") -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old binary format
        return bytes(booster().save_raw(form))


def sklearn_bytes() -> bytes:
    return pickle.dumps(pipeline())


def joblib_bytes(value: Any, compress: Any = 0) -> bytes:
    out = io.BytesIO()
    joblib.dump(value, out, compress=compress)
    return out.getvalue()


def folder(path: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tar_gz(path: Path, files: Mapping[str, bytes | str], *more: tarfile.TarInfo) -> Path:
    """An archive as tar makes it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def checked(path: Path, **order: Any) -> Report:
    return check(path, path.name, Order(**order))


def told(report: Report, level: Level | None = None) -> set[str]:
    """Names of what was found."""
    return {finding.name for finding in report.findings if level in (None, finding.level)}


def faults(report: Report) -> set[str]:
    return told(report, Level.FAULT)


def text_of(report: Report, name: str) -> str:
    """All sentences of findings of one name."""
    return "\n".join(finding.message for finding in report.findings if finding.name == name)
