from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmekit.errors import (
    BadRequest,
    ModelLoadError,
    NotAcceptable,
    OutOfResources,
    PredictionFailed,
    UnsupportedMediaType,
)
from mmekit_handlers.base import Context, Handler, Response, is_out_of_memory
from mmekit_handlers.transformer import MAX_STACKED_ROWS
from tests.support.handlers import ask, body, request, transformer


class Sums(Handler):
    """Adds up each row, and remembers how many rows each call had."""

    row_wise = True

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.calls: list[int] = []

    def model_fn(self, model_dir: str) -> Any:
        return "a model"

    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        self.calls.append(len(data))
        if (data == 13).any():
            raise ValueError("thirteen")
        return data.sum(axis=1)


class Short(Sums):
    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        return super().predict_fn(data, model, context)[:1]


# --- stacking


def test_requests_of_one_shape_are_predicted_in_one_call(tmp_path: Path) -> None:
    handler = Sums({})
    answers = ask(
        transformer(handler, tmp_path),
        request("1,2"),
        request("3,4\n5,6"),
        request("[[7.0, 8]]", "application/json", "text/csv"),
    )
    assert [body(answer) for answer in answers] == [b"[3.0]", b"[7.0,11.0]", b"15.0\n"]
    assert handler.calls == [4]


def test_each_width_and_dtype_is_a_call_of_its_own(tmp_path: Path) -> None:
    handler = Sums({})
    out = io.BytesIO()
    np.save(out, np.ones((1, 2), np.float32))
    requests = [
        request("1,2"),
        request("1,2,3"),
        request("4,5"),
        request(out.getvalue(), "application/x-npy"),
        request("1,2", attributes="other"),
    ]
    answers = ask(transformer(handler, tmp_path), *requests)
    assert [body(answer) for answer in answers] == [b"[3.0]", b"[6.0]", b"[9.0]", b"[2.0]", b"[3.0]"]
    assert handler.calls == [2, 1, 1, 1]


def test_a_bad_request_is_its_own(tmp_path: Path) -> None:
    handler = Sums({})
    answers = ask(
        transformer(handler, tmp_path),
        request("1,x"),
        request("1,2"),
        request("1,2", "image/png"),
        request("1,2", accept="image/png"),
        request("3,4"),
    )
    kinds = [type(answer) for answer in answers]
    assert kinds == [BadRequest, Response, UnsupportedMediaType, NotAcceptable, Response]
    assert handler.calls == [3]


def test_a_stacked_call_that_raises_is_run_again_one_by_one(tmp_path: Path) -> None:
    handler = Sums({})
    answers = ask(transformer(handler, tmp_path), request("1,2"), request("6,13"), request("3,4"))
    assert [body(answers[0]), body(answers[2])] == [b"[3.0]", b"[7.0]"]
    assert isinstance(answers[1], ValueError)
    assert handler.calls == [3, 1, 1, 1]


def test_a_prediction_with_too_few_rows_is_not_given_to_the_wrong_caller(tmp_path: Path) -> None:
    handler = Short({})
    answers = ask(transformer(handler, tmp_path), request("1,2"), request("3,4"))
    assert [body(answer) for answer in answers] == [b"[3.0]", b"[7.0]"]
    assert handler.calls == [2, 1, 1]


def test_no_call_has_more_than_the_limit_of_rows(tmp_path: Path) -> None:
    handler = Sums({})
    large = "\n".join(["1,1"] * 100)
    rows = [request("1,1") for _ in range(70)]
    answers = ask(transformer(handler, tmp_path), request(large), *rows)
    assert len(answers) == 71
    assert handler.calls == [100, MAX_STACKED_ROWS, 6]


def test_alone_forbids_stacking(tmp_path: Path) -> None:
    handler = Sums({})
    ask(transformer(handler, tmp_path), request("1,2"), request("3,4"), alone=True)
    assert handler.calls == [1, 1]


# --- user functions

MODEL = "class M:\n    def predict(self, x): return x * 2\ndef model_fn(model_dir): return M()\n"


def test_one_function_is_enough_the_rest_is_ours(tmp_path: Path) -> None:
    model = transformer(None, tmp_path, MODEL)
    answer = ask(model, request("[[1, 2]]", "application/json; charset=utf-8"))
    assert (answer.body, answer.content_type) == (b"[[2,4]]", "application/json")
    assert not model.batches


def test_own_functions_and_a_framework_handler_share_the_work(tmp_path: Path) -> None:
    model = transformer(
        Sums({}), tmp_path, "def output_fn(prediction, accept): return f'{prediction} {accept}'"
    )
    answer = ask(model, request("1,2", accept="text/plain;q=0.5"))
    assert (answer.body, answer.content_type) == (b"[3.] text/plain", "text/plain")


def test_input_fn_gets_str_for_text_types_and_bytes_for_others(tmp_path: Path) -> None:
    source = MODEL + (
        "def input_fn(data, content_type): return [type(data).__name__, content_type]\n"
        "def predict_fn(data, model): return data"
    )
    model = transformer(None, tmp_path, source)
    assert body(ask(model, request("é", "Text/CSV; charset=utf-8"))) == b'["str","text/csv"]'
    assert body(ask(model, request("x", "image/png"))) == b'["bytes","image/png"]'
    assert body(ask(model, request("{}", None))) == b'["str","application/json"]'
    with pytest.raises(BadRequest, match="the body is not utf-8: byte 0 is 0xff"):
        ask(model, request(b"\xff", "text/csv"))


def test_transform_fn_does_it_all(tmp_path: Path) -> None:
    source = MODEL + "def transform_fn(model, data, content_type, accept): return data.upper(), 'text/x'"
    answer = ask(transformer(None, tmp_path, source), request("a,b", "text/csv"))
    assert (answer.body, answer.content_type) == (b"A,B", "text/x")


def test_the_context_carries_headers_status_and_properties(tmp_path: Path) -> None:
    source = MODEL + (
        "def output_fn(prediction, accept, context):\n"
        "    context.set_response_header(0, 'X-Seen', context.get_request_header(0, 'X-One'))\n"
        "    context.set_response_content_type(0, 'text/own')\n"
        "    context.set_response_status(202, 'Later', 0)\n"
        "    return context.system_properties['model_dir']\n"
    )
    answer = ask(transformer(None, tmp_path, source), request("1", X_One="1"))
    assert answer == Response(str(tmp_path).encode(), "text/own", 202, [("X-Seen", "1")], "Later")


def test_hooks_run_in_order_around_the_load(tmp_path: Path) -> None:
    source = (
        "seen = []\n"
        "def pre_model_fn(model_dir): seen.append('pre')\n"
        "def model_fn(model_dir, context): seen.append(context.system_properties['model_dir']); return seen\n"
        "def model_warmup_fn(model_dir, model): model.append('warm')\n"
        "def predict_fn(data, model): return model\n"
    )
    answer = ask(transformer(None, tmp_path, source), request("[1]", None))
    assert json.loads(answer.body) == ["pre", str(tmp_path), "warm"]


@pytest.mark.parametrize(
    ("returned", "expected", "content_type"),
    [
        ("'é'", "é".encode(), "application/json"),
        ("b'x'", b"x", "application/json"),
        ("bytearray(b'x')", b"x", "application/json"),
        ("('x', 'text/x')", b"x", "text/x"),
        ("('x', None)", b"x", "application/json"),
        ("prediction", b"2.0\n", "text/csv"),
        ("(prediction, 'application/json')", b"[[2.0]]", "application/json"),
        ("{'a': 1}", b'{"a":1}', "application/json"),
        ("[1, 2]", b"[1,2]", "application/json"),
    ],
)
def test_what_output_fn_may_return(returned: str, expected: bytes, content_type: str, tmp_path: Path) -> None:
    source = MODEL + f"def output_fn(prediction, accept): return {returned}"
    accept = "text/csv" if returned == "prediction" else None
    answer = ask(transformer(None, tmp_path, source), request("1", accept=accept))
    assert (expected, content_type) == (answer.body, answer.content_type)


@pytest.mark.parametrize(("returned", "kind"), [("None", "NoneType"), ("3", "int"), ("object()", "object")])
def test_what_output_fn_may_not_return_is_named(returned: str, kind: str, tmp_path: Path) -> None:
    source = MODEL + f"def output_fn(prediction, accept):\n    return {returned}"
    with pytest.raises(PredictionFailed, match=rf":4: output_fn returned a {kind}; expected str"):
        ask(transformer(None, tmp_path, source), request("1"))


def test_a_prediction_of_none_names_predict_fn(tmp_path: Path) -> None:
    source = MODEL + "def predict_fn(data, model): data + 1"
    with pytest.raises(PredictionFailed, match=r":4: predict_fn returned None; expected a prediction"):
        ask(transformer(None, tmp_path, source), request("1"))


def test_a_prediction_that_nothing_can_write_is_the_models_fault(tmp_path: Path) -> None:
    source = MODEL + "def predict_fn(data, model): return object()"
    with pytest.raises(PredictionFailed, match="the prediction, a object, cannot be written as JSON"):
        ask(transformer(None, tmp_path, source), request("1"))


@pytest.mark.parametrize(
    "source",
    [
        "def output_fn(prediction, accept):\n    yield 'a'\n    yield b'b'\n",
        "def predict_fn(data, model):\n    yield 'a'\n    yield b'b'\n",
        "def transform_fn(model, data, content_type, accept):\n    return iter(['a', b'b']), 'text/x'\n",
    ],
)
def test_generators_are_streamed(source: str, tmp_path: Path) -> None:
    answer = ask(transformer(None, tmp_path, MODEL + source), request("1"))
    assert not isinstance(answer.body, bytes)
    assert list(answer.body) == [b"a", b"b"]


def test_a_stream_that_fails_at_its_start_is_an_error(tmp_path: Path) -> None:
    source = MODEL + "def output_fn(prediction, accept):\n    raise KeyError('early')\n    yield 'a'\n"
    with pytest.raises(KeyError, match="early"):
        ask(transformer(None, tmp_path, source), request("1"))
    source = MODEL + "def output_fn(prediction, accept):\n    yield 'a'\n    yield 3\n"
    answer = ask(transformer(None, tmp_path, source), request("1"))
    with pytest.raises(PredictionFailed, match="output_fn yielded a int"):
        list(answer.body)


def test_own_functions_get_stacked_rows_only_if_they_say_so(tmp_path: Path) -> None:
    source = (
        MODEL + "calls = []\ndef predict_fn(data, model{0}):\n    calls.append(len(data))\n    return data\n"
    )
    rows = [request("1,2"), request("3,4")]
    for prefix, argument, stacks in (
        ("", "", False),
        ("row_wise = True\n", "", True),
        ("row_wise = True\n", ", context", False),
    ):
        model = transformer(None, tmp_path, prefix + source.format(argument))
        assert stacks == model.batches
        answers = ask(model, *rows)
        assert [body(answer) for answer in answers] == [b"[[1.0,2.0]]", b"[[3.0,4.0]]"]


# --- which handler


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def model_fn(model_dir):\n    return {'a': 1}",
            r":1: model_fn returned a dict, which has no predict\(\); write predict_fn\(data, model\)",
        ),
        (
            "def input_fn(data, content_type): pass",
            r"defines no model_fn and no built-in handler recognises a model file; write model_fn",
        ),
    ],
)
def test_what_is_missing_is_said_at_load(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=message):
        transformer(None, tmp_path, source)


@pytest.mark.parametrize(
    ("made", "handler"),
    [
        (
            "import sklearn.dummy\ndef model_fn(d):\n    return sklearn.dummy.DummyRegressor()"
            ".fit([[1]], [2])",
            "SklearnHandler",
        ),
        (
            "import xgboost\ndef model_fn(d):\n    m = xgboost.XGBRegressor(n_estimators=1, n_jobs=1)\n"
            "    return m.fit([[1], [2]], [1, 2])",
            "XGBoostHandler",
        ),
        ("import torch\ndef model_fn(d): return torch.nn.Linear(1, 1)", "PyTorchHandler"),
        ("class M:\n    def predict(self, x): return x\ndef model_fn(d): return M()", "Handler"),
    ],
)
def test_what_model_fn_returns_is_served_by_its_framework(made: str, handler: str, tmp_path: Path) -> None:
    model = transformer(None, tmp_path, made)
    assert handler == type(model._handler).__name__
    assert json.loads(body(ask(model, request("1", "text/csv")))) is not None


def test_the_setting_chooses_the_default_answer(tmp_path: Path) -> None:
    environ = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
    model = transformer(Sums(environ), tmp_path)
    for accept in (None, "*/*"):
        answer = ask(model, request("1,2", accept=accept))
        assert (answer.body, answer.content_type) == (b"3.0\n", "text/csv")


# --- memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfResources("no room"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (ValueError("memory is mentioned"), False),
    ],
)
def test_out_of_memory_is_recognised_whatever_says_it(error: Exception, expected: bool) -> None:
    assert expected == is_out_of_memory(error)
    wrapped = RuntimeError("load failed")
    wrapped.__cause__ = error
    assert expected == is_out_of_memory(wrapped)


def test_errors_that_refer_to_each_other_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)


def test_split_gives_each_request_its_rows() -> None:
    parts: Sequence[Any] = Handler({}).split(np.arange(5), [2, 0, 3])
    assert [part.tolist() for part in parts] == [[0, 1], [], [2, 3, 4]]
