"""The models that are served: trained here from fixed seeds, saved as SageMaker unpacks them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FEATURES = 30
_ROWS = 4000

#: A model's own code, as a data scientist would put it into the archive.
_OWN_CODE = """\
import os

import xgboost


def model_fn(model_dir):
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(os.path.join(model_dir, "model.ubj"))
    return booster


def predict_fn(data, model):
    return model.predict(data)
"""


@dataclass(frozen=True)
class Model:
    """A model folder, how it is asked, and what its framework answers by itself.

    ``handler`` is named in the load request (``module:function``); None leaves the choice to the
    server. ``expected`` is the framework's own prediction for ``body``.
    """

    name: str
    folder: Path
    body: bytes
    expected: float
    handler: str | None = None
    headers: dict[str, str] = field(
        default_factory=lambda: {"Content-Type": "text/csv", "Accept": "text/csv"}
    )

    def copy(self, number: int) -> Model:
        """The same model under another name, in a folder of its own beside this one."""
        folder = self.folder.with_name(f"{self.folder.name}-{number}")
        _link_tree(self.folder, folder)
        return replace(self, name=f"{self.name}-{number}", folder=folder)

    def renamed(self, name: str) -> Model:
        """The same folder, loaded under another name."""
        return replace(self, name=name)

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class ModelStore:
    """Makes models in one folder, each kind once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Model] = {}

    def get(self, kind: str) -> Model:
        """Return the model of a kind in ``KINDS``, made at the first call."""
        if kind not in self._made:
            folder = self._folder / kind
            folder.mkdir(parents=True)
            self._made[kind] = KINDS[kind](folder)
        return self._made[kind]

    def copies(self, kind: str, number: int) -> list[Model]:
        """Return ``number`` models of one kind; their files are hard links to the same bytes."""
        original = self.get(kind)
        return [original.copy(index) for index in range(number)]


def _data() -> tuple[Any, Any]:
    import numpy

    generator = numpy.random.default_rng(7)
    features = generator.normal(size=(_ROWS, FEATURES)).astype(numpy.float32)
    target = features[:, 0] * 2 + features[:, 1] * features[:, 2] + generator.normal(size=_ROWS) * 0.1
    return features, target.astype(numpy.float32)


def _body(row: Any) -> bytes:
    return ",".join(f"{value:.6g}" for value in row).encode()


def _parsed(body: bytes) -> Any:
    import numpy

    return numpy.asarray([json.loads(b"[" + body + b"]")], dtype=numpy.float32)


def _booster(folder: Path, file: str) -> Model:
    import xgboost

    features, target = _data()
    settings = {"max_depth": 6, "objective": "reg:squarederror", "nthread": 2, "seed": 7}
    booster = xgboost.train(settings, xgboost.DMatrix(features, target), num_boost_round=100)
    booster.save_model(folder / file)
    body = _body(features[0])
    expected = float(booster.predict(xgboost.DMatrix(_parsed(body)))[0])
    return Model(folder.name, folder, body, expected)


def _xgboost(folder: Path) -> Model:
    return _booster(folder, "model.ubj")


def _xgboost_json(folder: Path) -> Model:
    return _booster(folder, "model.json")


def _xgboost_own_code(folder: Path) -> Model:
    model = _booster(folder, "model.ubj")
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(_OWN_CODE)
    return model


def _estimator(folder: Path, estimator: Any) -> Model:
    import joblib

    features, target = _data()
    estimator.fit(features, (target > 0).astype(int))
    joblib.dump(estimator, folder / "model.joblib")
    body = _body(features[0])
    return Model(folder.name, folder, body, float(estimator.predict(_parsed(body))[0]))


def _sklearn(folder: Path) -> Model:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _estimator(folder, make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)))


def _forest(folder: Path) -> Model:
    from sklearn.ensemble import RandomForestClassifier

    return _estimator(folder, RandomForestClassifier(n_estimators=100, random_state=7))


def _torch(folder: Path) -> Model:
    import torch

    torch.manual_seed(7)
    net = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 1),
    ).eval()
    body = _body(_data()[0][0])
    row = torch.from_numpy(_parsed(body))
    with torch.no_grad(), warnings.catch_warnings():
        # TorchScript is deprecated in favour of torch.export; it is what AWS's image loads.
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(net, row)  # type: ignore[no-untyped-call]  # torch's gap
        script.save(str(folder / "model.pt"))
        return Model(folder.name, folder, body, float(net(row)[0, 0]))


def _null(folder: Path) -> Model:
    (folder / "empty.txt").write_text("the handler reads nothing\n")
    return Model(folder.name, folder, b"x" * 200, 1.0, handler="null_handler:handle")


#: What each kind of model is called in results.
KINDS: dict[str, Callable[[Path], Model]] = {
    "null": _null,
    "xgboost": _xgboost,
    "xgboost-json": _xgboost_json,
    "xgboost-own-code": _xgboost_own_code,
    "sklearn": _sklearn,
    "forest": _forest,
    "torch": _torch,
}


def _link_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, copy)
