"""Real small models of the three frameworks in folders as SageMaker unpacks them, and their own answers."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xgboost as xgb
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Predict = Callable[[np.ndarray], np.ndarray]

#: Columns of every model here.
WIDTH = 4


@dataclass(frozen=True)
class Trained:
    """A model's folder, and what its framework predicts for ``(rows, 4)``."""

    folder: Path
    predict: Predict


def rows(count: int, seed: int = 1) -> np.ndarray:
    """Return distinct rows of which each value is exact in float32."""
    return np.random.default_rng(seed).integers(-400, 400, (count, WIDTH)) / 128


def _target(x: np.ndarray) -> np.ndarray:
    return x @ np.array([1.0, -2.0, 0.5, 3.0]) + x[:, 0] * x[:, 1]


def xgboost_model(folder: Path) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    x = rows(300)
    settings = {"nthread": 1, "max_depth": 4, "seed": 1}
    booster = xgb.train(settings, xgb.DMatrix(x, _target(x), nthread=1), 12)
    booster.save_model(folder / "model.ubj")
    return Trained(folder, lambda x: booster.predict(xgb.DMatrix(x, nthread=1)))


def sklearn_model(folder: Path) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    x = rows(300)
    pipeline = make_pipeline(StandardScaler(), LinearRegression()).fit(x, _target(x))
    (folder / "model.pkl").write_bytes(pickle.dumps(pipeline))
    return Trained(folder, pipeline.predict)


def pytorch_model(folder: Path) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated and everywhere
        torch.jit.trace(net, torch.zeros(1, WIDTH)).save(folder / "model.pt")

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(x.astype(np.float32))).numpy()

    return Trained(folder, predict)


FRAMEWORKS: dict[str, Callable[[Path], Trained]] = {
    "xgboost": xgboost_model,
    "sklearn": sklearn_model,
    "pytorch": pytorch_model,
}
