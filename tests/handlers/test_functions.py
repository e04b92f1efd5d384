from __future__ import annotations

from pathlib import Path

import pytest

from mmekit.errors import ModelLoadError
from mmekit_handlers.functions import UserFunctions
from tests.support.handlers import module


def of(source: str, tmp_path: Path) -> UserFunctions:
    return UserFunctions.of(module(source, tmp_path))


@pytest.mark.parametrize(
    ("signature", "takes_context"),
    [
        ("data, model", False),
        ("data, model, context", True),
        ("data, model, ctx=None", True),
        ("data, model, anything", True),
        ("data, model, threshold=0.5", False),
        ("*args", False),
        ("data, model=None", False),
        ("data, model, **options", False),
    ],
)
def test_a_further_positional_argument_is_the_context(
    signature: str, takes_context: bool, tmp_path: Path
) -> None:
    functions = of(f"def predict_fn({signature}): pass", tmp_path)
    assert functions.predict_fn is not None
    assert takes_context == functions.predict_fn.takes_context


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def model_fn(): pass",
            r"inference\.py:1: model_fn takes \(\); expected \(model_dir\) or \(model_dir, context\)",
        ),
        (
            "\ndef predict_fn(data): pass",
            r":2: predict_fn takes \(data\); expected \(data, model\) or \(data, model, context\)",
        ),
        (
            "def output_fn(a, b, c, d): pass",
            r"output_fn takes \(a, b, c, d\); expected \(prediction, accept\)",
        ),
        ("def input_fn(a, b, *, key): pass", r"input_fn takes \(a, b, key\); expected"),
        ("model_fn = 3", r"inference\.py: model_fn is a int; expected a function"),
        ("async def predict_fn(data, model): pass", "predict_fn is async; expected an ordinary function"),
        (
            "def transform_fn(a, b, c, d): pass\ndef input_fn(a, b): pass\ndef output_fn(a, b): pass",
            "defines transform_fn and also input_fn, output_fn; transform_fn does the work of all three",
        ),
    ],
)
def test_functions_that_cannot_be_called_fail_the_load(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=message):
        of(source, tmp_path)


def test_any_subset_is_fine(tmp_path: Path) -> None:
    functions = of("row_wise = True\ndef output_fn(prediction, accept): pass", tmp_path)
    assert functions.row_wise
    assert functions.handle_requests
    assert (functions.output_fn is not None, functions.model_fn, functions.predict) == (True, None, None)
    assert not of("def model_fn(model_dir): pass", tmp_path).handle_requests


def test_callable_objects_and_builtins_are_functions(tmp_path: Path) -> None:
    source = (
        "class Predict:\n    def __call__(self, data, model, context): return data\n"
        "predict_fn = Predict()\noutput_fn = max"
    )
    functions = of(source, tmp_path)
    assert functions.predict_fn is not None
    assert functions.predict_fn.takes_context
    assert functions.output_fn is not None
    assert functions.output_fn("a", "b", None) == "b"
