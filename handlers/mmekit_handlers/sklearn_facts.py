"""What an estimator's parts tell: its threads, its text columns, whether its rows are independent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

#: What a caller may ask for, in the order in which the default is looked for.
METHODS = (
    "predict",
    "transform",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
)

#: Estimators of scikit-learn whose answer for a row depends on the rows beside it, or on chance: a
#: stopping rule over all rows (NMF, dictionaries, LDA), draws in order (imputer, RBM), one image a row.
#: SparsePCA drops the first axis of a single row's answer.
_NOT_ROW_WISE = frozenset(
    (
        "NMF",
        "MiniBatchNMF",
        "DictionaryLearning",
        "MiniBatchDictionaryLearning",
        "SparseCoder",
        "LatentDirichletAllocation",
        "IterativeImputer",
        "PatchExtractor",
        "BernoulliRBM",
        "SparsePCA",
        "MiniBatchSparsePCA",
    )
)

#: Estimators that turn text into numbers; only models with one of them may be sent text.
_TAKE_TEXT = frozenset(
    (
        "OneHotEncoder",
        "OrdinalEncoder",
        "TargetEncoder",
        "LabelBinarizer",
        "FeatureHasher",
        "CountVectorizer",
        "TfidfVectorizer",
        "HashingVectorizer",
        "FunctionTransformer",
    )
)

#: Estimators whose input is one document a row, not a row of columns.
_TAKE_DOCUMENTS = frozenset(("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"))

#: Estimators that may look at column names or dtypes, so they need a DataFrame where they had one.
_TAKE_FRAMES = frozenset(("ColumnTransformer", "FunctionTransformer", *_TAKE_DOCUMENTS))


def parts(model: Any) -> list[Any]:
    """Return a model and all estimators inside it, at any depth, each once."""
    found = []
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if current is model or isinstance(current, BaseEstimator):
            found.append(current)
        waiting.extend(_inside(current))
    return found


def methods(model: Any) -> tuple[str, ...]:
    """Return which of ``METHODS`` a fitted model has."""
    return tuple(name for name in METHODS if callable(getattr(model, name, None)))


def use_one_thread(estimators: list[Any]) -> None:
    """Set ``n_jobs`` of all to 1.

    Starting threads or processes costs more than a small call saves, and workers that each use all
    CPUs slow each other down nine to twelve times.
    """
    for estimator in estimators:
        if getattr(estimator, "n_jobs", None) not in (None, 1):
            estimator.n_jobs = 1


def is_standard(estimator: Any) -> bool:
    """Say whether the class is scikit-learn's own, not one derived from it."""
    return type(estimator).__module__.partition(".")[0] == "sklearn"


def is_row_wise(estimators: list[Any]) -> bool:
    """Say whether n rows are known to predict the same as n calls with one row each."""
    return all(
        is_standard(estimator)
        and type(estimator).__name__ not in _NOT_ROW_WISE
        and not _is_random(estimator)
        and not any(_is_users_function(value) for value in vars(estimator).values())
        for estimator in estimators
    )


def takes_text(estimators: list[Any]) -> bool:
    """Say whether any part may be able to read text."""
    return any(not is_standard(part) or type(part).__name__ in _TAKE_TEXT for part in estimators)


def takes_documents(model: Any) -> bool:
    """Say whether the model's first step wants a list of texts."""
    return type(_first(model)).__name__ in _TAKE_DOCUMENTS


def needs_frame(estimators: list[Any]) -> bool:
    """Say whether a model that was fitted with column names must be given them again.

    Where it need not, an array predicts the same in less than half the time.
    """
    return any(
        not is_standard(part)
        or type(part).__name__ in _TAKE_FRAMES
        or hasattr(part, "_sklearn_output_config")
        or getattr(part, "is_categorical_", None) is not None
        for part in estimators
    )


def feature_names(model: Any) -> tuple[str, ...] | None:
    """Return the column names that a model was fitted with."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else tuple(str(name) for name in names)


def feature_count(model: Any) -> int | None:
    """Return how many columns a model was fitted with; None when it does not say."""
    count = getattr(model, "n_features_in_", None)
    return None if count is None else int(count)


def text_columns(estimators: list[Any], names: tuple[str, ...] | None) -> frozenset[str]:
    """Return the columns that held text when the model was fitted, and those that it drops.

    Without this ``02134`` would be read as a number and be an unknown category. Empty when the
    model's parts do not say.
    """
    found: set[str] = set()
    for part in estimators:
        kind = type(part).__name__
        if not is_standard(part) or kind in _TAKE_DOCUMENTS or kind == "FunctionTransformer":
            return frozenset()
        if kind == "ColumnTransformer" and names is not None:
            for _, transformer, columns in getattr(part, "transformers_", ()):
                chosen = _names_of(columns, names)
                found.update(chosen if transformer == "drop" else _text_of(transformer, chosen))
    return frozenset(found)


def _text_of(transformer: Any, columns: list[str]) -> Iterator[str]:
    for step in _steps(transformer):
        categories = getattr(step, "categories_", None)
        if categories is not None and len(categories) == len(columns):
            for name, known in zip(columns, categories, strict=True):
                if any(isinstance(value, str) for value in known):
                    yield name
            return


def _names_of(columns: Any, names: tuple[str, ...]) -> list[str]:
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice):
        return list(names[columns]) if not isinstance(columns.start, str) else []
    chosen = np.asarray(columns)
    if chosen.dtype.kind == "b":
        return [name for name, taken in zip(names, chosen, strict=True) if taken]
    if chosen.dtype.kind in "iu":
        return [names[index] for index in np.atleast_1d(chosen)]
    return [str(name) for name in np.atleast_1d(chosen)]


def _steps(transformer: Any) -> list[Any]:
    steps = getattr(transformer, "steps", None)
    return [step for _, step in steps] if steps is not None else [transformer]


def _first(model: Any) -> Any:
    best = getattr(model, "best_estimator_", None)
    if best is not None:
        return _first(best)
    steps = getattr(model, "steps", None)
    return _first(steps[0][1]) if steps else model


def _inside(value: Any) -> Iterable[Any]:
    """Return what may hold estimators: parts of scikit-learn's objects, and containers of any kind."""
    if isinstance(value, list | tuple | set):
        return value
    if isinstance(value, dict):
        return [] if _is_plain(next(iter(value.values()), None)) else value.values()
    if isinstance(value, np.ndarray):  # gradient boosting keeps its trees so
        keeps = value.dtype.kind == "O" and value.size and not _is_plain(value.flat[0])
        return value.ravel().tolist() if keeps else []
    if isinstance(value, BaseEstimator) or is_standard(value):
        return list(getattr(value, "__dict__", {}).values())
    return []


def _is_plain(value: Any) -> bool:
    """Say whether a container's first value shows that it holds data: a vocabulary may be very long."""
    return isinstance(value, str | int | float | np.generic | None)


def _is_random(estimator: Any) -> bool:
    """Say whether an estimator answers by drawing lots."""
    return type(estimator).__name__ == "DummyClassifier" and estimator.strategy in ("stratified", "uniform")


def _is_users_function(value: Any) -> bool:
    """Say whether a value is a function that scikit-learn did not write: a metric, a kernel, a ``func``."""
    if not callable(value) or isinstance(value, type | np.ufunc):
        return False
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0] != "sklearn"
