"""The short way into the library predicts what ``inplace_predict`` does, bit for bit."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest
import scipy.sparse
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmekit_handlers.xgboost_direct import InplacePredictor
from tests.support.xgboost_models import data, train

FLOATS = st.floats(width=32, allow_infinity=False) | st.sampled_from([0.0, 0.5, -0.5])


@pytest.fixture(scope="module")
def boosters() -> list[xgb.Booster]:
    made = [train(), train("multi:softprob", num_class=3), train("multi:softmax", num_class=3)]
    for booster in made:
        booster.set_param({"nthread": 1})
    return made


@settings(max_examples=60)
@given(
    st.integers(0, 2),
    st.integers(1, 70).flatmap(lambda rows: arrays(np.float64, (rows, 4), elements=FLOATS)),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([(0, 0), (0, 2), (1, 3)]),
    st.sampled_from([math.nan, 0.5]),
)
def test_predicts_what_inplace_predict_does(boosters, which, rows, dtype, rounds, missing) -> None:
    booster = boosters[which]
    predictor = InplacePredictor(booster, rounds, missing)
    assert predictor._call is not None
    rows = rows.astype(dtype)
    for given_rows in (rows, scipy.sparse.csr_matrix(rows)):
        expected = booster.inplace_predict(given_rows, iteration_range=rounds, missing=missing)
        found = predictor.predict(given_rows)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(expected, found)


def test_a_prediction_outlives_the_next_and_can_be_changed(boosters) -> None:
    predictor = InplacePredictor(boosters[0], (0, 0), math.nan)
    rows = data()[0]
    first = predictor.predict(rows[:3])
    kept = first.copy()
    predictor.predict(rows[3:6])
    np.testing.assert_array_equal(kept, first)
    first *= 100


@pytest.mark.parametrize(
    "rows",
    [
        data()[0][:2],
        np.asfortranarray(data()[0][:4]),
        data()[0][:8:2],
        data()[0][:2].astype(">f8"),
        np.ones((2, 4), np.int64),
        np.ones((2, 4), bool),
        np.zeros((0, 4)),
    ],
)
def test_any_array_is_read_right(rows: np.ndarray, boosters) -> None:
    expected = boosters[0].inplace_predict(np.ascontiguousarray(rows, np.float64))
    np.testing.assert_array_equal(expected, InplacePredictor(boosters[0], (0, 0), math.nan).predict(rows))


def test_a_wrong_width_is_an_error_of_xgboost(boosters) -> None:
    with pytest.raises(xgb.core.XGBoostError, match="must equal to trained model"):
        InplacePredictor(boosters[0], (0, 0), math.nan).predict(np.ones((1, 3)))


def test_the_booster_lives_as_long_as_its_predictor() -> None:
    predictor = InplacePredictor(train(), (0, 0), math.nan)
    gc.collect()
    assert predictor.predict(data()[0][:1]).tolist() == train().inplace_predict(data()[0][:1]).tolist()


def test_memory_does_not_grow_with_calls(boosters) -> None:
    predictor = InplacePredictor(boosters[1], (0, 0), math.nan)
    rows = data()[0][:32]

    def data_kib() -> int:
        with open("/proc/self/status") as status:
            return int(status.read().partition("VmData:")[2].split()[0])

    for _ in range(200):
        predictor.predict(rows)
    before = data_kib()
    for _ in range(10_000):
        predictor.predict(rows)
    assert data_kib() - before < 2048  # an arena of Python's own has 1024, and may be due just now


def test_a_library_that_has_changed_is_asked_the_long_way(boosters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(xgb.core, "_ProxyDMatrix")
    predictor = InplacePredictor(boosters[0], (0, 0), math.nan)
    assert predictor._call is None
    rows = data()[0][:3]
    np.testing.assert_array_equal(boosters[0].inplace_predict(rows), predictor.predict(rows))
