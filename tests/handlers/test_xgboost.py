"""Requests to XGBoost models, beside what xgboost itself predicts."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit.errors import BadRequest, ConfigError, NotAcceptable, UnsupportedMediaType
from mmekit_handlers.base import Response
from mmekit_handlers.xgboost import XGBoostHandler
from tests.support.recordio import recordio, tensor
from tests.support.xgboost_models import MULTI_MODEL, Request, Served, csv_of, data, libsvm_of, save, train

OBJECTIVES = [
    "reg:squarederror",
    "reg:gamma",
    "count:poisson",
    "binary:logistic",
    "binary:logitraw",
    "binary:hinge",
    "multi:softmax",
    "multi:softprob",
    "rank:pairwise",
    "rank:ndcg",
    "survival:cox",
    "survival:aft",
]
NAMES = ["age", "sex", "fare", "class"]


def npy(rows: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, rows)
    return out.getvalue()


def predicted(booster: xgb.Booster, rows: np.ndarray, **more: Any) -> list[Any]:
    """Return what xgboost predicts by its other way, through a DMatrix."""
    matrix = xgb.DMatrix(rows, feature_names=booster.feature_names, nthread=1)
    return booster.predict(matrix, **more).tolist()


@pytest.fixture(scope="module")
def regressor() -> xgb.Booster:
    return train()


@pytest.fixture(scope="module")
def served(regressor: xgb.Booster, tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("regressor")
    save(regressor, folder / "xgboost-model")
    return Served(folder)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Served]:
    def serve(booster: xgb.Booster, environ: dict[str, str] | None = None, **more: Any) -> Served:
        save(booster, tmp_path / "model.ubj")
        return Served(tmp_path, environ, **more)

    return serve


# Predictions


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_predicts_what_xgboost_predicts(objective: str, serve) -> None:
    extra = {"num_class": 3} if objective.startswith("multi:") else {}
    booster = train(objective, **extra)
    rows = data()[0][:9]
    body, content_type = serve(booster).ask(csv_of(rows))
    assert content_type == "application/json"
    assert json.loads(body) == predicted(booster, rows)


@pytest.mark.parametrize("booster_name", ["dart", "gblinear"])
def test_other_boosters_predict_alike(booster_name: str, serve) -> None:
    more = {"rate_drop": 0.5} if booster_name == "dart" else {"max_depth": None}
    booster = train(booster=booster_name, **more)
    model = serve(booster)
    rows = np.nan_to_num(data()[0][:5])
    expected = predicted(booster, rows)
    np.testing.assert_allclose(json.loads(model.ask(csv_of(rows))[0]), expected, rtol=1e-6)
    np.testing.assert_allclose(json.loads(model.ask(libsvm_of(rows), None)[0]), expected, rtol=1e-6)


def test_several_outputs_a_row(serve) -> None:
    x, y = data()
    booster = xgb.train({"nthread": 1}, xgb.DMatrix(x, np.column_stack([y, -y]), nthread=1), 3)
    assert json.loads(serve(booster).ask(csv_of(x[:3]))[0]) == predicted(booster, x[:3])
    quantiles = train("reg:quantileerror", quantile_alpha=[0.1, 0.9])
    assert json.loads(serve(quantiles).ask(csv_of(x[:3]))[0]) == predicted(quantiles, x[:3])


def test_predicts_with_the_best_iteration_of_an_early_stopping(serve) -> None:
    x, y = data()
    noise = np.random.default_rng(1).normal(size=60)
    booster = xgb.train(
        {"nthread": 1, "eta": 0.5},
        xgb.DMatrix(x[:60], y[:60] + noise, nthread=1),
        30,
        evals=[(xgb.DMatrix(x[60:], y[60:], nthread=1), "v")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    best = (0, booster.best_iteration + 1)
    assert predicted(booster, x[:4], iteration_range=best) != predicted(booster, x[:4])
    assert json.loads(serve(booster).ask(csv_of(x[:4]))[0]) == predicted(booster, x[:4], iteration_range=best)


def test_categories_are_sent_as_their_codes(serve) -> None:
    x, y = data()
    x[:, 3] = np.arange(len(x)) % 5
    matrix = xgb.DMatrix(
        x, y, feature_names=NAMES, feature_types=["q", "q", "q", "c"], enable_categorical=True, nthread=1
    )
    booster = xgb.train({"nthread": 1, "max_cat_to_onehot": 1}, matrix, 4)
    model = serve(booster)
    assert json.loads(model.ask(csv_of(x[:8]))[0]) == booster.predict(matrix)[:8].tolist()
    with pytest.raises(
        BadRequest,
        match=r"column 4.*'red' is not a number.*features take the numeric codes of training: class",
    ):
        model.ask(b"1,2,3,red")


# Bodies


def bodies(rows: np.ndarray) -> dict[str, tuple[bytes, str | None]]:
    lists = [[None if np.isnan(v) else v for v in row] for row in rows.tolist()]
    sparse = [[(i, v) for i, v in enumerate(row) if v is not None] for row in lists]
    tensors = {
        kind: recordio(*(tensor(kind, row) for row in rows), label=1.0) for kind in ("float32", "float64")
    }
    keyed = [tensor("float32", [v for _, v in row], [i for i, _ in row], [rows.shape[1]]) for row in sparse]
    return {
        "csv": (csv_of(rows), "text/csv"),
        "csv, short name, charset": (csv_of(rows), "csv; charset=utf-8"),
        "csv, final newline": (csv_of(rows) + b"\r\n", "text/csv"),
        "csv, tabs": (csv_of(rows).replace(b",", b"\t"), "text/csv"),
        "csv, semicolons": (csv_of(rows).replace(b",", b";"), "text/csv"),
        "csv, blanks": (csv_of(rows).replace(b",,", b",nan,").replace(b",", b" "), "text/csv"),
        "csv, label_size without a label": (csv_of(rows), "text/csv; label_size=1"),
        "csv, quoted": (b'"' + csv_of(rows).replace(b",", b'","').replace(b"\n", b'"\n"') + b'"', "text/csv"),
        "csv, header": (b"w,x,y,z\n" + csv_of(rows), "text/csv"),
        "csv, said header": (b"w;x;y;z\n" + csv_of(rows).replace(b",", b";"), "text/csv; header=present"),
        "csv, label": (csv_of(np.column_stack([np.ones(len(rows)), rows])), "text/csv; label_size=1"),
        "libsvm by default": (libsvm_of(rows), None),
        "libsvm": (libsvm_of(rows), "text/libsvm"),
        "x-libsvm": (libsvm_of(rows), "text/x-libsvm ;charset=utf8"),
        "libsvm from 1": (libsvm_of(rows, 1), "libsvm"),
        "recordio, dense": (tensors["float32"], "application/x-recordio-protobuf"),
        "recordio, float64": (tensors["float64"], "recordio-protobuf"),
        "recordio, sparse": (recordio(*keyed), "application/x-recordio-protobuf"),
        "json": (json.dumps(lists).encode(), "application/json"),
        "json, instances": (json.dumps({"instances": lists}).encode(), "application/json; charset=utf-8"),
        "jsonlines": (b"\n".join(json.dumps(row).encode() for row in lists), "application/jsonlines"),
        "npy, float64": (npy(rows), "application/x-npy"),
        "npy, float32": (npy(rows.astype("f4")), "application/x-npy"),
        "npy, big endian, by column": (npy(np.asfortranarray(rows.astype(">f8"))), "application/x-npy"),
    }


@pytest.mark.parametrize("kind", bodies(np.zeros((1, 4))))
def test_every_kind_of_body_gives_the_same_predictions(kind: str, served: Served, regressor) -> None:
    rows = data()[0][:20]
    body, content_type = bodies(rows)[kind]
    assert json.loads(served.ask(body, content_type)[0]) == predicted(regressor, rows)


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/json", "text/csv"])
def test_one_row_may_come_without_its_brackets(content_type: str, served: Served, regressor) -> None:
    row = data()[0][1]
    body = {"application/x-npy": npy(row), "application/json": json.dumps(row.tolist()).encode()}
    answer, _ = served.ask(body.get(content_type, csv_of(row[None])), content_type)
    assert json.loads(answer) == predicted(regressor, row[None])


def test_integers_and_bools_are_numbers(served: Served, regressor) -> None:
    rows = np.array([[1, 0, 1, 1]])
    expected = predicted(regressor, rows.astype(float))
    for dtype in (np.int64, np.int8, np.bool_, np.float16):
        assert json.loads(served.ask(npy(rows.astype(dtype)), "application/x-npy")[0]) == expected


def test_zero_and_missing_are_not_the_same(served: Served, regressor) -> None:
    rows = np.array([[np.nan, 1, 1, np.nan], [0, 1, 1, 0]])
    expected = predicted(regressor, rows)
    assert expected[0] != expected[1]
    assert json.loads(served.ask(b"1 1:1 2:1\n1 0:0 1:1 2:1 3:0", None)[0]) == expected


def test_an_index_of_libsvm_means_the_same_alone_and_beside_others(served: Served, regressor) -> None:
    row, other = np.full((1, 4), np.nan), np.zeros((1, 4))
    row[0, 2] = 1.5
    expected = predicted(regressor, np.vstack([row, other]))
    assert json.loads(served.ask(libsvm_of(row), None)[0]) == expected[:1]
    assert json.loads(served.ask(libsvm_of(np.vstack([row, other])), None)[0]) == expected


def test_the_setting_says_where_indices_of_libsvm_start(regressor, serve) -> None:
    model = serve(regressor, {**MULTI_MODEL, "MMEKIT_XGBOOST_LIBSVM_BASE": "1"})
    row = np.array([[0.5, np.nan, 1.5, np.nan]])
    assert json.loads(model.ask(b"0 1:0.5 3:1.5", None)[0]) == predicted(regressor, row)


def test_columns_are_put_in_the_models_order_by_name(serve) -> None:
    booster = train(feature_names=NAMES)
    model = serve(booster)
    rows = data()[0][:3]
    expected = predicted(booster, rows)
    backwards = np.ascontiguousarray(rows[:, ::-1])
    header = ",".join(NAMES[::-1]).encode()
    records = [dict(zip(NAMES[::-1], row, strict=True)) for row in np.nan_to_num(backwards).tolist()]
    assert json.loads(model.ask(header + b"\n" + csv_of(backwards))[0]) == expected
    assert json.loads(model.ask(csv_of(rows))[0]) == expected
    answer, _ = model.ask(json.dumps({"instances": records}).encode(), "application/json")
    assert json.loads(answer) == predicted(booster, np.nan_to_num(rows))
    # Column names alone decide, not a header's look.
    labelled = b"target," + header + b"\n" + csv_of(np.column_stack([np.ones(3), backwards]))
    assert json.loads(model.ask(labelled, "text/csv; label_size=1")[0]) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "error", "said"),
    [
        (b"", None, BadRequest, "the body is empty"),
        (b"", "text/csv", BadRequest, "the body is empty"),
        (b"\n \n", "text/csv", BadRequest, "the body is empty"),
        (b"", "application/x-recordio-protobuf", BadRequest, "the body is empty"),
        (b"", "application/json", BadRequest, "the body is empty"),
        (b"", "application/x-npy", BadRequest, "the body is empty"),
        (b"[]", "application/json", BadRequest, "the body has no rows"),
        (npy(np.zeros((0, 4))), "application/x-npy", BadRequest, "the body has no rows"),
        (npy(np.zeros((1, 2, 2))), "application/x-npy", BadRequest, "expected (rows, columns)"),
        (npy(np.zeros((1, 4), complex)), "application/x-npy", BadRequest, "expected numbers"),
        (b"1,2,3", "text/csv", BadRequest, "the rows have 3 columns; the model has 4 features"),
        (
            b"1,2,3,4,5",
            "text/csv",
            BadRequest,
            "the rows have 5 columns; the model has 4 features; send no label",
        ),
        (b"1,2,3,4,5", "text/csv", BadRequest, "Content-Type: text/csv; label_size=1"),
        (b"1", "text/csv", BadRequest, "the rows have 1 columns; the model has 4 features"),
        (b"[[1,2,3]]", "application/json", BadRequest, "the rows have 3 columns; the model has 4 features"),
        (npy(np.zeros((2, 5))), "application/x-npy", BadRequest, "the rows have 5 columns; the model has 4"),
        (b"1,2,3,4\n1,2,x,4", "text/csv", BadRequest, "row 2, column 3: 'x' is not a number"),
        (b"1\t2\tx\t4", "text/csv", BadRequest, "row 1, column 3: 'x' is not a number"),
        (b"1,2,3,4\n1,2", "text/csv", BadRequest, "row 2 has 2 columns, row 1 has 4"),
        (b"1,2,inf,4", "text/csv", BadRequest, "row 1, column 3: inf is infinite or too large for float32"),
        (b"1,2,3,-1e39", "text/csv", BadRequest, "row 1, column 4: -1e+39 is infinite or too large"),
        (b"1 0:inf", None, BadRequest, "inf is infinite or too large for float32"),
        (b"1 0:1 7:1", None, BadRequest, "row 1 has a value at index 7; the model has 4 features, 0 to 3"),
        (
            b"1 0:1\n1 0:1 4:1",
            None,
            BadRequest,
            "row 2 has a value at index 4; the model has 4 features, 0 to 3",
        ),
        (b"1,2,3,4", None, BadRequest, "send Content-Type: text/csv for CSV"),
        (
            recordio(tensor("float32", [1], [0], [9])),
            "recordio-protobuf",
            BadRequest,
            "the rows are 9 columns wide; the model has 4 features",
        ),
        (recordio(tensor("int32", [1, 2])), "recordio-protobuf", BadRequest, "the rows have 2 columns"),
        (b"1,2,3,4,5", "application/x-recordio-protobuf", BadRequest, "expected recordio"),
        (b"PAR1", "application/x-parquet", UnsupportedMediaType, "Parquet is for training"),
        (b"PAR1", "parquet", UnsupportedMediaType, "an endpoint does not read it"),
        (
            b"1",
            "image/png",
            UnsupportedMediaType,
            "this model reads text/csv, text/libsvm, application/x-recordio",
        ),
        (b"1,2,3,4", "text/csv; label_size=2", UnsupportedMediaType, "label_size=2; expected 0, or 1"),
    ],
)
def test_what_cannot_be_read_is_named(
    body: bytes, content_type: str | None, error: type[Exception], said: str, served: Served
) -> None:
    with pytest.raises(error) as raised:
        served.ask(body, content_type)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"age,sex,fare\n1,2,3", "text/csv", "model's 4 features; missing: class"),
        (b"age,sex,fare,cabin\n1,2,3,4", "text/csv", "missing: class; unexpected: cabin"),
        (b'[{"age":1,"sex":2,"fare":3,"class":4,"id":9}]', "application/json", "unexpected: id"),
        (b'{"fare":3}', "application/json", "missing: age, sex, class"),
        (b"1,2,3", "text/csv", "the model has 4 features (age, sex, fare, class)"),
    ],
)
def test_wrong_names_are_listed(body: bytes, content_type: str, said: str, serve) -> None:
    model = serve(train(feature_names=NAMES))
    with pytest.raises(BadRequest) as raised:
        model.ask(body, content_type)
    assert said in raised.value.message


def test_a_list_of_names_is_cut(serve) -> None:
    x = np.zeros((4, 50))
    matrix = xgb.DMatrix(x, np.arange(4), feature_names=[f"n{i}" for i in range(50)], nthread=1)
    model = serve(xgb.train({"nthread": 1}, matrix, 1))
    with pytest.raises(BadRequest, match=r"missing: n1, .*n20 and 29 more$"):
        model.ask(b'{"n0": 1}', "application/json")


@settings(max_examples=60)
@given(
    st.binary(max_size=60) | st.text("0123456789,.;\t\n\"'eEnaif-+ :[]{}", max_size=60).map(str.encode),
    st.sampled_from(["text/csv", None, "application/json", "application/jsonlines", "application/x-npy"]),
)
def test_any_body_is_answered_or_refused(served: Served, body: bytes, content_type: str | None) -> None:
    try:
        answer, _ = served.ask(body, content_type)
    except BadRequest:
        return
    assert all(isinstance(value, float) for value in json.loads(answer))


# Answers


@pytest.mark.parametrize(
    ("environ", "accept", "content_type", "expected"),
    [
        (MULTI_MODEL, None, "application/json", b"[{0},{1}]"),
        (MULTI_MODEL, "*/*", "application/json", b"[{0},{1}]"),
        (MULTI_MODEL, "text/csv", "text/csv", b"{0},{1}"),
        (MULTI_MODEL, "csv", "text/csv", b"{0},{1}"),
        (MULTI_MODEL, "application/jsonlines", "application/jsonlines", b"{0}\n{1}\n"),
        (MULTI_MODEL, "application/xml, text/*;q=0.5", "text/csv", b"{0},{1}"),
        ({**MULTI_MODEL, "SAGEMAKER_BATCH": "true"}, "text/csv", "text/csv", b"{0}\n{1}\n"),
        ({**MULTI_MODEL, "SAGEMAKER_BATCH": "false"}, "text/csv", "text/csv", b"{0},{1}"),
        (
            {**MULTI_MODEL, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"},
            None,
            "text/csv",
            b"{0},{1}",
        ),
        ({}, None, "text/csv", b"{0}\n{1}\n"),
        ({}, "application/json", "application/json", b'{"predictions":[{"score":{0}},{"score":{1}}]}'),
        ({}, "application/jsonlines", "application/jsonlines", b'{"score":{0}}\n{"score":{1}}\n'),
        (
            {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/jsonlines"},
            None,
            "application/jsonlines",
            b'{"score":{0}}\n{"score":{1}}\n',
        ),
    ],
)
def test_answers_are_written_as_in_aws_containers(
    environ: dict[str, str], accept: str | None, content_type: str, expected: bytes, regressor, serve
) -> None:
    rows = data()[0][:2]
    for place, value in enumerate(predicted(regressor, rows)):
        expected = expected.replace(b"{%d}" % place, repr(value).encode())
    assert serve(regressor, environ).ask(csv_of(rows), accept=accept) == (expected, content_type)


@pytest.mark.parametrize(
    ("environ", "accept", "rows"),
    [
        (MULTI_MODEL, "text/csv", lambda text: text.split("\n")),
        ({**MULTI_MODEL, "SAGEMAKER_BATCH": "true"}, "text/csv", lambda text: text.rstrip("\n").split("\n")),
        ({}, "text/csv", lambda text: text.rstrip("\n").split("\n")),
    ],
)
def test_csv_of_several_classes_has_a_line_a_row(environ, accept: str, rows, serve) -> None:
    booster = train("multi:softprob", num_class=3)
    body, _ = serve(booster, environ).ask(csv_of(data()[0][:3]), accept=accept)
    values = [[float(field) for field in line.split(",")] for line in rows(body.decode())]
    assert values == predicted(booster, data()[0][:3])


def test_json_of_several_classes_in_single_model_mode(serve) -> None:
    booster = train("multi:softprob", num_class=3)
    body, _ = serve(booster, {}).ask(csv_of(data()[0][:2]), accept="application/json")
    expected = [{"score": row} for row in predicted(booster, data()[0][:2])]
    assert json.loads(body) == {"predictions": expected}


def test_npy_answers_hold_float32(served: Served, regressor) -> None:
    rows = data()[0][:3]
    body, content_type = served.ask(csv_of(rows), accept="application/x-npy")
    values = np.load(io.BytesIO(body))
    assert (content_type, values.dtype) == ("application/x-npy", np.float32)
    assert values.tolist() == predicted(regressor, rows)


def test_an_answer_that_cannot_be_given_is_refused(served: Served) -> None:
    with pytest.raises(NotAcceptable, match="this model can answer with application/json, text/csv"):
        served.ask(b"1,2,3,4", accept="application/x-recordio-protobuf")


# Several requests in one call


def test_stacked_requests_get_the_answers_they_get_alone(served: Served) -> None:
    rows = data()[0]
    requests = [
        Request(csv_of(rows[:1])),
        Request(libsvm_of(rows[1:4]), None),
        Request(b"1,2"),
        Request(npy(rows[4:6].astype("f4")), "application/x-npy"),
        Request(csv_of(rows[6:90])),
        Request(libsvm_of(rows[90:91]), "text/libsvm", accept="text/csv"),
        Request(csv_of(rows[91:92]), custom_attributes="trace=1"),
        Request(b"1 0:x", None),
    ]
    together = served.ask_all(requests)
    for request, outcome in zip(requests, together, strict=True):
        (alone,) = served.ask_all([request])
        if isinstance(alone, Exception):
            assert (type(outcome), str(outcome)) == (type(alone), str(alone))
        else:
            assert isinstance(outcome, Response)
            assert (outcome.body, outcome.content_type) == (alone.body, alone.content_type)
    assert [isinstance(outcome, BadRequest) for outcome in together].count(True) == 2


def test_rows_of_one_kind_go_in_one_call(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = served.transformer._handler._ensemble
    sizes = []
    predict = ensemble.predict
    monkeypatch.setattr(ensemble, "predict", lambda rows: sizes.append(rows.shape[0]) or predict(rows))
    rows = data()[0]
    served.ask_all([Request(csv_of(rows[i : i + 1]), custom_attributes=str(i)) for i in range(32)])
    served.ask_all([Request(libsvm_of(rows[i : i + 1]), None) for i in range(8)])
    assert sizes == [32, 8]


# The user's own functions


def code(**functions: Any) -> ModuleType:
    module = ModuleType("inference")
    module.__dict__.update(functions)
    return module


def test_a_users_predict_fn_gets_a_dmatrix_and_the_booster(serve, regressor) -> None:
    seen = []

    def predict_fn(matrix, model):
        seen.append((type(matrix), type(model), matrix.feature_names))
        return model.predict(matrix, output_margin=True)

    rows = data()[0][:2]
    model = serve(regressor, code=code(predict_fn=predict_fn))
    for body, content_type in [(csv_of(rows), "text/csv"), (libsvm_of(rows), None), (npy(rows), "npy")]:
        assert json.loads(model.ask(body, content_type)[0]) == predicted(regressor, rows)
    model.ask(b"w,x,y,z\n1,2,3,4") if regressor.feature_names else None
    assert seen[0] == (xgb.DMatrix, xgb.Booster, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: rows,
        lambda rows: rows.tolist(),
        lambda rows: xgb.DMatrix(rows, nthread=1),
        lambda rows: pytest.importorskip("pandas").DataFrame(rows),
    ],
)
def test_a_users_input_fn_may_return_what_xgboost_takes(make, serve, regressor) -> None:
    rows = data()[0][:2]
    model = serve(regressor, code=code(input_fn=lambda body, content_type: make(rows)))
    assert json.loads(model.ask(b"x")[0]) == predicted(regressor, rows)


def test_a_users_model_fn_may_return_a_wrapper(tmp_path: Path) -> None:
    x, y = data("binary:logistic")
    wrapper = xgb.XGBClassifier(n_estimators=3, n_jobs=1).fit(x, y)
    model = Served(tmp_path, code=code(model_fn=lambda model_dir: wrapper))
    assert json.loads(model.ask(csv_of(x[:3]))[0]) == predicted(wrapper.get_booster(), x[:3])


# Settings and the process


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "SAGEMAKER_INFERENCE_ENSEMBLE",
            "maybe",
            "SAGEMAKER_INFERENCE_ENSEMBLE is 'maybe'; expected true or false",
        ),
        ("SAGEMAKER_BATCH", "x", "SAGEMAKER_BATCH is 'x'; expected true or false"),
        (
            "MMEKIT_XGBOOST_NTHREAD",
            "0",
            "MMEKIT_XGBOOST_NTHREAD is '0'; expected a whole number of threads from 1",
        ),
        ("MMEKIT_XGBOOST_NTHREAD", "two", "MMEKIT_XGBOOST_NTHREAD is 'two'"),
        ("MMEKIT_XGBOOST_LIBSVM_BASE", "2", "MMEKIT_XGBOOST_LIBSVM_BASE is '2'; expected 0, 1 or auto"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        XGBoostHandler({name: value})
    assert said in raised.value.message


@pytest.mark.parametrize(("environ", "threads"), [({}, "1"), ({"MMEKIT_XGBOOST_NTHREAD": "2"}, "2")])
def test_boosters_use_one_thread_unless_told(environ: dict[str, str], threads: str, tmp_path: Path) -> None:
    save(train(), tmp_path / "model.ubj")
    model = Served(tmp_path, environ).transformer.model
    assert json.loads(model.save_config())["learner"]["generic_param"]["nthread"] == threads


def test_warming_up_and_serving_start_no_thread(tmp_path: Path) -> None:
    """The template forks after it, which is safe only with one thread."""
    save(train(), tmp_path / "model.ubj")
    program = (
        "import os, sys\n"
        "from mmekit_handlers.xgboost import XGBoostHandler\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "XGBoostHandler.warm_up()\n"
        "handler = XGBoostHandler({})\n"
        "model = handler.prepare(handler.model_fn(sys.argv[1]))\n"
        "handler.predict_fn(handler.input_fn(b'1,2,3,4', 'text/csv', None), model, None)\n"
        "handler.predict_fn(handler.input_fn(b'1 0:1', None, None), model, None)\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    # OpenBLAS starts its threads at import; XGBoost is asked without any help from the environment.
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    environ.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environ,
        check=True,
    )
    assert done.stdout.split() == ["0"]
