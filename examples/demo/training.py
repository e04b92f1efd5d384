"""Three small real models on scikit-learn's bundled data sets, saved as people save them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
import xgboost
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A model's files in ``folder``, rows to try it with, and what the framework itself predicts."""

    name: str
    framework: str
    folder: Path
    rows: Rows
    predict: Callable[[Rows], NDArray[np.float64]]


def train_all(folder: Path) -> list[Trained]:
    """Train all three below ``folder``; a few seconds."""
    return [_wine_pipeline(folder), _diabetes_regressor(folder), _iris_network(folder)]


def _wine_pipeline(folder: Path) -> Trained:
    data, target = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data, target)
    path = _made(folder / "wine")
    joblib.dump(model, path / "model.joblib")
    return Trained("wine", "scikit-learn pipeline", path, data[[0, 70, 150]], model.predict)


def _diabetes_regressor(folder: Path) -> Trained:
    data, target = load_diabetes(return_X_y=True)
    booster = xgboost.train({"max_depth": 4, "nthread": 1}, xgboost.DMatrix(data, target), num_boost_round=60)
    path = _made(folder / "diabetes")
    booster.save_model(path / "model.ubj")
    return Trained("diabetes", "XGBoost regressor", path, data[::50], booster.inplace_predict)


def _iris_network(folder: Path) -> Trained:
    data, target = load_iris(return_X_y=True)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    inputs, labels = torch.tensor(data, dtype=torch.float32), torch.tensor(target)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    path = _made(folder / "iris")
    torch.jit.script(network.eval()).save(str(path / "model.pt"))

    def predict(rows: Rows) -> NDArray[np.float64]:
        with torch.inference_mode():
            scores: NDArray[np.float64] = network(torch.tensor(rows, dtype=torch.float32)).numpy()
        return scores

    return Trained("iris", "PyTorch classifier", path, data[::30], predict)


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
