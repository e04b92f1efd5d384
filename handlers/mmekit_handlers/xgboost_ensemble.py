"""The boosters of one model, which predict as one: averaged, or voting where predictions are labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost as xgb

from mmekit.errors import ModelLoadError
from mmekit_handlers.table import Array
from mmekit_handlers.xgboost_direct import InplacePredictor
from mmekit_handlers.xgboost_files import LoadedBooster
from mmekit_handlers.xgboost_output import LABEL_OBJECTIVES


class Ensemble:
    """The boosters of one model, which predict as one."""

    def __init__(self, loaded: Sequence[LoadedBooster], threads: int) -> None:
        """Take boosters over and set their threads; raises ``ModelLoadError`` if they do not fit together."""
        self._members = [_Member(one, threads) for one in loaded]
        first = self._members[0]
        for other in self._members[1:]:
            first.check_same_shape(other)
        self.objective = first.objective
        self.classes = first.classes
        self.features = first.features
        #: Names in the model's order; None when it was trained without.
        self.names = first.names
        self.categorical = first.categorical

    def predict(self, data: Any) -> Array:
        """Predict for an array, CSR matrix, DataFrame or DMatrix.

        Returns ``(rows,)`` or ``(rows, outputs)`` float32.
        """
        if len(self._members) == 1:
            return self._members[0].predict(data)
        each = np.stack([member.predict(data) for member in self._members])
        if self.objective in LABEL_OBJECTIVES:
            return _most_frequent(each)
        averaged: Array = each.mean(axis=0)
        return averaged


class _Member:
    def __init__(self, loaded: LoadedBooster, threads: int) -> None:
        self._booster = loaded.booster
        self._booster.set_param({"nthread": threads})
        self._missing = loaded.missing
        self._threads = threads
        self._file = loaded.file
        learner = json.loads(self._booster.save_config())["learner"]
        self.objective: str = learner["objective"]["name"]
        self.classes = int(learner["learner_model_param"].get("num_class", 0))
        self._is_linear = learner["gradient_booster"]["name"] == "gblinear"
        self._outputs = (self.classes, learner["learner_model_param"].get("num_target"))
        self.features = self._booster.num_features()
        self.names = tuple(self._booster.feature_names) if self._booster.feature_names else None
        types = self._booster.feature_types or []
        self.categorical = [place for place, kind in enumerate(types) if kind == "c"]
        self._rounds = self._best_rounds()
        self._in_place = InplacePredictor(self._booster, self._rounds, self._missing)

    def check_same_shape(self, other: _Member) -> None:
        for what, ours, theirs in (
            ("features", self.features, other.features),
            ("classes and targets", self._outputs, other._outputs),
            ("feature names", self.names, other.names),
        ):
            if ours != theirs:
                raise ModelLoadError(
                    f"{self._file} and {other._file} cannot be averaged: the first has {what} {ours}, the "
                    f"second {theirs}. Keep one file, or set SAGEMAKER_INFERENCE_ENSEMBLE=false to use the "
                    "first by name"
                )

    def predict(self, data: Any) -> Array:
        if self._is_linear and not isinstance(data, xgb.DMatrix):
            # The linear booster has no in-place prediction.
            data = xgb.DMatrix(data, missing=self._missing, nthread=self._threads)
        if isinstance(data, xgb.DMatrix):
            prediction: Array = self._booster.predict(
                data, iteration_range=self._rounds, validate_features=False
            )
            return prediction
        return self._in_place.predict(data)

    def _best_rounds(self) -> tuple[int, int]:
        """Return the rounds up to the best of an early stopping; (0, 0) means all."""
        best = self._booster.attr("best_iteration")
        if best is None or self._is_linear or not best.isdigit():
            return 0, 0
        return 0, min(int(best) + 1, self._booster.num_boosted_rounds())


def _most_frequent(each: Array) -> Array:
    """Return the label that most members chose, for each row.

    Among equals the smallest, as ``scipy.stats.mode`` has it.
    """
    ordered = np.sort(each, axis=0)
    votes = (ordered[:, None] == ordered[None]).sum(axis=0)
    chosen: Array = np.take_along_axis(ordered, votes.argmax(axis=0)[None], axis=0)[0]
    return chosen
