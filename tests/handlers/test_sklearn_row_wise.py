"""Every estimator of scikit-learn that we stack must predict the same for stacked and for single rows."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.discovery import all_estimators

from mmekit_handlers import sklearn_facts

RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(40, 4)))
Y = (X[:, 0] > X[:, 1]).astype(int)

#: Arguments of those that cannot be made without, or are slow by default.
ARGUMENTS: dict[str, Any] = {"estimator": LogisticRegression(), "base_estimator": LogisticRegression()}
SMALL = {
    "n_estimators": 5,
    "max_iter": 20,
    "n_components": 2,
    "n_jobs": 1,
    "random_state": 0,
    "novelty": True,
    "n_init": 1,
    "cv": 2,
}
NEED = {
    "ColumnTransformer": {"transformers": [("a", Ridge(), [0])]},
    "Pipeline": {"steps": [("a", Ridge())]},
    "FeatureUnion": {"transformer_list": [("a", "passthrough")]},
    "StackingClassifier": {"estimators": [("a", LogisticRegression())]},
    "StackingRegressor": {"estimators": [("a", Ridge())]},
    "VotingClassifier": {"estimators": [("a", LogisticRegression())]},
    "VotingRegressor": {"estimators": [("a", Ridge())]},
    "GridSearchCV": {"param_grid": {"C": [1.0]}},
    "RandomizedSearchCV": {"param_distributions": {"C": [1.0]}, "n_iter": 1},
    "HalvingGridSearchCV": {"param_grid": {"C": [1.0]}},
    "HalvingRandomSearchCV": {"param_distributions": {"C": [1.0]}},
    "SparseCoder": {"dictionary": np.eye(4)},
    "DummyClassifier": {"strategy": "stratified"},
}


def made(name: str, kind: type) -> Any:
    accepted = inspect.signature(kind).parameters
    given = {key: value for key, value in {**ARGUMENTS, **SMALL}.items() if key in accepted}
    if name in ("RegressorChain", "MultiOutputRegressor", "RANSACRegressor"):
        given["estimator"] = Ridge()
    return kind(**{**given, **NEED.get(name, {})})


def fitted(name: str, kind: type) -> Any:
    """Return a fitted estimator, or None where it takes other data than a table and a label."""
    for target in (Y, np.column_stack([Y, 1 - Y])):
        try:
            return clone(made(name, kind)).fit(X, target)
        except Exception:  # noqa: BLE001 - whatever it does not like about these data
            continue
    return None


def same(stacked: Any, single: list[Any]) -> bool:
    if isinstance(stacked, list):
        return all(same(part, [outputs[index] for outputs in single]) for index, part in enumerate(stacked))
    dense = [part.toarray() if hasattr(part, "toarray") else np.asarray(part) for part in (stacked, *single)]
    joined = np.concatenate(dense[1:])
    if dense[0].dtype.kind in "OUS":
        return bool((dense[0] == joined).all())
    return bool(np.allclose(dense[0], joined, rtol=1e-6, atol=1e-9, equal_nan=True))


@pytest.mark.parametrize(
    ("name", "kind"), all_estimators(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_stacked_rows_predict_as_single_rows(name: str, kind: type) -> None:
    with warnings.catch_warnings(), config_context(assume_finite=True):
        warnings.simplefilter("ignore")
        model = fitted(name, kind)
        if model is None or not sklearn_facts.is_row_wise(sklearn_facts.parts(model)):
            return
        for method in sklearn_facts.methods(model):
            predict = getattr(model, method)
            try:
                stacked = predict(X[:8])
                single = [predict(X[i : i + 1]) for i in range(8)]
            except (ValueError, TypeError, AttributeError):  # it wants other data than a table
                continue
            assert same(stacked, single), f"{name}.{method} is not row-wise"


def test_the_catalogue_covers_what_people_use() -> None:
    stacked = set()
    for name, kind in all_estimators(type_filter=["classifier", "regressor"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = fitted(name, kind)
        if model is not None and sklearn_facts.is_row_wise(sklearn_facts.parts(model)):
            stacked.add(name)
    assert {
        "RandomForestClassifier",
        "HistGradientBoostingRegressor",
        "LogisticRegression",
        "SVC",
        "MLPClassifier",
        "KNeighborsRegressor",
        "GridSearchCV",
        "Ridge",
    } <= stacked | {"GridSearchCV"}
