"""Models for the image tests, each with a row and what its own framework predicts for it."""

from __future__ import annotations

import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Frameworks are imported where they are used: this file is collected where they are missing, too.
if TYPE_CHECKING:
    import numpy as np

#: What KNeighborsRegressor keeps of `big`: 5 million float64, about what a large model of its kind has.
BIG_ROWS, BIG_COLUMNS = 500_000, 10

PROGRAMS = {
    "slow": """
        import time
        def model_fn(model_dir):
            return "slow"
        def predict_fn(data, model):
            time.sleep(3)
            return [4.5]
    """,
    "pid": """
        import os
        def model_fn(model_dir):
            return "pid"
        def transform_fn(model, body, content_type, accept):
            return str(os.getpid()), "text/plain"
    """,
    "orphans": """
        import subprocess
        def model_fn(model_dir):
            return "orphans"
        def transform_fn(model, body, content_type, accept):
            # The shells end at once and leave their children to process 1.
            for _ in range(5):
                subprocess.run(["sh", "-c", "sleep 0.3 & exit"], check=True)
            return "left five", "text/plain"
    """,
}


@dataclass(frozen=True)
class ModelFolder:
    name: str
    path: Path
    row: list[float]
    expected: list[float]

    @property
    def url(self) -> str:
        """Where the container sees the folder."""
        return f"/opt/ml/models/{self.name}/model"

    @property
    def csv(self) -> str:
        return ",".join(map(repr, self.row))


def make_models(folder: Path) -> dict[str, ModelFolder]:
    """Write all models below ``folder``, readable for every user."""
    made = [_xgboost(folder), _sklearn(folder), _torch(folder), _big(folder)]
    for name, source in PROGRAMS.items():
        path = _folder(folder, name)
        (path / "inference.py").write_text(textwrap.dedent(source))
        made.append(ModelFolder(name, path, [1.0, 2.0], [4.5]))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return {model.name: model for model in made}


def _folder(folder: Path, name: str) -> Path:
    path = folder / name / "model"
    path.mkdir(parents=True)
    return path


def _rows() -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    random = np.random.default_rng(7)
    rows = random.normal(size=(300, 4))
    return rows, rows @ np.array([1.0, -2.0, 0.5, 3.0])


def _xgboost(folder: Path) -> ModelFolder:
    import xgboost

    rows, target = _rows()
    booster = xgboost.train({"max_depth": 4, "nthread": 1}, xgboost.DMatrix(rows, label=target), 20)
    path = _folder(folder, "xgboost")
    booster.save_model(path / "model.ubj")
    expected = booster.predict(xgboost.DMatrix(rows[:1]))
    return ModelFolder("xgboost", path, rows[0].tolist(), expected.tolist())


def _sklearn(folder: Path) -> ModelFolder:
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, target = _rows()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, (target > 0).astype(int))
    path = _folder(folder, "sklearn")
    joblib.dump(pipeline, path / "model.joblib")
    return ModelFolder("sklearn", path, rows[0].tolist(), pipeline.predict(rows[:1]).tolist())


def _torch(folder: Path) -> ModelFolder:
    import torch

    rows, _ = _rows()
    torch.manual_seed(7)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    path = _folder(folder, "pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what many people still have
        torch.jit.script(net).save(str(path / "model.pt"))
    with torch.inference_mode():
        expected = net(torch.tensor(rows[:1], dtype=torch.float32))[0]
    return ModelFolder("pytorch", path, rows[0].tolist(), expected.tolist())


def _big(folder: Path) -> ModelFolder:
    import joblib
    import numpy as np
    from sklearn.neighbors import KNeighborsRegressor

    random = np.random.default_rng(7)
    rows = random.random((BIG_ROWS, BIG_COLUMNS))
    model = KNeighborsRegressor(n_neighbors=1, algorithm="brute").fit(rows, rows[:, 0])
    path = _folder(folder, "big")
    joblib.dump(model, path / "model.joblib")
    return ModelFolder("big", path, rows[5].tolist(), [float(rows[5, 0])])
