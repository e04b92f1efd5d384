from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mmekit.errors import BadRequest, ConfigError, ModelLoadError, NotAcceptable, PredictionFailed
from mmekit_handlers.sklearn import SklearnHandler
from mmekit_handlers.transformer import Transformer
from tests.support.handlers import ask, body, request, transformer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
FRAME = pd.DataFrame(X, columns=["a", "b", "c"])
PEOPLE = pd.DataFrame(
    {"age": [20.0, 30, 40, 50] * 5, "zip": ["02134", "10001", "94105", "10001"] * 5, "note": ["x"] * 20}
)
OLD = [0, 0, 1, 1] * 5


def people_model() -> Any:
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("text", OneHotEncoder(), ["zip"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression()).fit(PEOPLE, OLD)


def served(model: Any, tmp_path: Path, environ: Mapping[str, str] | None = None) -> Transformer:
    joblib.dump(model, tmp_path / "model.joblib")
    return transformer(SklearnHandler(environ or {}), tmp_path)


def answer(model: Transformer, *args: Any, **kwargs: Any) -> Any:
    return json.loads(body(ask(model, request(*args, **kwargs))))


def csv(rows: Any) -> str:
    return "\n".join(",".join(repr(float(x)) for x in row) for row in np.atleast_2d(rows))


# --- what goes in and out


def test_a_pipeline_predicts_what_it_predicts_by_itself(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model = served(pipeline, tmp_path)
    expected = pipeline.predict(X[:5]).tolist()
    assert expected == answer(model, csv(X[:5]))
    assert expected == answer(model, json.dumps({"instances": X[:5].tolist()}), "application/json")
    assert expected == answer(model, json.dumps(X[:5].tolist()), None)
    out = io.BytesIO()
    np.save(out, X[:5])
    assert expected == answer(model, out.getvalue(), "application/x-npy")
    out = io.BytesIO()
    sparse.save_npz(out, sparse.csr_matrix(X[:5]))
    unscaled = served(LogisticRegression().fit(X, Y), tmp_path)
    assert LogisticRegression().fit(X, Y).predict(X[:5]).tolist() == answer(
        unscaled, out.getvalue(), "application/x-npz"
    )


def test_labels_may_be_strings(tmp_path: Path) -> None:
    model = served(LogisticRegression().fit(X, np.array(["no", "yes"])[Y]), tmp_path)
    label = "yes" if Y[0] else "no"
    assert [label] == answer(model, csv(X[0]))
    assert f"{label}\n".encode() == body(ask(model, request(csv(X[0]), accept="text/csv")))
    written = body(ask(model, request(csv(X[0]), accept="application/x-npy")))
    assert [label] == np.load(io.BytesIO(written), allow_pickle=False).tolist()


@pytest.mark.parametrize("how", ["attribute", "setting"])
@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "decision_function", "predict"])
def test_the_method_is_chosen_by_custom_attribute_or_setting(how: str, method: str, tmp_path: Path) -> None:
    logistic = LogisticRegression().fit(X, Y)
    environ = {"MMEKIT_SKLEARN_METHOD": method} if how == "setting" else {}
    attributes = f"trace=1; method={method}" if how == "attribute" else None
    found = answer(served(logistic, tmp_path, environ), csv(X[:2]), attributes=attributes)
    np.testing.assert_array_equal(getattr(logistic, method)(X[:2]), found)


def test_a_method_that_the_model_lacks_names_those_it_has(tmp_path: Path) -> None:
    model = served(LinearRegression().fit(X, Y), tmp_path)
    with pytest.raises(BadRequest) as caught:
        ask(model, request(csv(X[0]), attributes="method=predict_proba"))
    assert caught.value.message == "custom attribute method is 'predict_proba'; LinearRegression has predict"
    model = served(LinearRegression().fit(X, Y), tmp_path, {"MMEKIT_SKLEARN_METHOD": "transform"})
    with pytest.raises(
        BadRequest, match="MMEKIT_SKLEARN_METHOD is 'transform'; LinearRegression has predict"
    ):
        ask(model, request(csv(X[0])))
    with pytest.raises(BadRequest, match="custom attribute method is 'fit'"):
        ask(model, request(csv(X[0]), attributes="method=fit"))


def test_a_method_that_no_model_has_is_a_wrong_setting() -> None:
    with pytest.raises(
        ConfigError, match="MMEKIT_SKLEARN_METHOD is 'predikt'; expected one of predict, transform"
    ):
        SklearnHandler({"MMEKIT_SKLEARN_METHOD": "predikt"})


def test_a_transformer_transforms(tmp_path: Path) -> None:
    scaler = StandardScaler().fit(X)
    np.testing.assert_array_equal(scaler.transform(X[:2]), answer(served(scaler, tmp_path), csv(X[:2])))


def test_several_outputs_are_json(tmp_path: Path) -> None:
    multi = MultiOutputClassifier(LogisticRegression()).fit(X, np.column_stack([Y, np.arange(60) % 3]))
    model = served(multi, tmp_path)
    expected = [part.tolist() for part in multi.predict_proba(X[:3])]
    asked = [request(csv(row), attributes="method=predict_proba") for row in X[:3]]
    assert expected == answer(model, csv(X[:3]), attributes="method=predict_proba")
    stacked = [json.loads(body(outcome)) for outcome in ask(model, *asked)]
    for index, parts in enumerate(stacked):
        for output, part in zip(expected, parts, strict=True):
            np.testing.assert_allclose([output[index]], part)
    with pytest.raises(NotAcceptable, match="outputs of different widths, which text/csv cannot hold"):
        ask(model, request(csv(X[0]), accept="text/csv", attributes="method=predict_proba"))


def test_documents_are_texts_one_a_row(tmp_path: Path) -> None:
    texts = ["good film", "bad film", "good", "bad"]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    model = served(pipeline, tmp_path)
    assert answer(model, '["good", "bad"]', "application/json") == [1, 0]
    assert answer(model, '[["good"], ["bad"]]', "application/json") == [1, 0]
    assert answer(model, 'good\n"bad, bad film"\n') == [1, 0]
    with pytest.raises(BadRequest, match="the rows have 2 columns; Pipeline takes one text a row"):
        ask(model, request("good,bad\nbad,good"))
    with pytest.raises(BadRequest, match="row 2 is 3; Pipeline takes one text a row"):
        ask(model, request('["good", 3]', "application/json"))


# --- names


@pytest.mark.parametrize("made", [LinearRegression(), KMeans(2, n_init=1, random_state=0)])
def test_named_columns_are_put_into_the_models_order(made: Any, tmp_path: Path) -> None:
    fitted = made.fit(FRAME, Y)
    model = served(fitted, tmp_path)
    expected = fitted.predict(FRAME[:2]).tolist()
    records = FRAME[["c", "a", "b"]][:2].to_dict("records")
    assert expected == answer(model, json.dumps(records), "application/json")
    assert expected == answer(model, FRAME[["b", "c", "a"]][:2].to_csv(index=False))
    assert expected == answer(model, csv(X[:2]))


def test_missing_and_unknown_names_are_named(tmp_path: Path) -> None:
    model = served(LinearRegression().fit(FRAME, Y), tmp_path)
    with pytest.raises(BadRequest) as caught:
        ask(model, request("a,c,d,e\n1,2,3,4"))
    assert caught.value.message == (
        "the rows lack b and have unknown d, e; LinearRegression was fitted with a, b, c"
    )


def test_a_data_frame_model_gets_text_and_numbers_as_they_were(tmp_path: Path) -> None:
    fitted = people_model()
    model = served(fitted, tmp_path)
    expected = fitted.predict(PEOPLE[:3]).tolist()
    assert expected == answer(model, PEOPLE[:3].to_csv(index=False))
    assert expected == answer(model, PEOPLE[:3].to_csv(index=False, header=False))
    assert expected == answer(model, PEOPLE[:3].to_json(orient="records"), "application/json")
    assert expected[:1] == answer(model, "20,02134,\n")
    asked = [request(PEOPLE[i : i + 1].to_csv(index=False)) for i in range(3)]
    assert model.batches
    assert expected == [json.loads(body(outcome))[0] for outcome in ask(model, *asked)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("old,02134,x", r"row 1, column 1 \(age\): 'old' is not a number"),
        ("20,00000,x", r"Pipeline cannot use these rows: Found unknown categories \['00000'\] in column 0"),
        ("20,02134", "the rows have 2 columns; Pipeline was fitted with 3"),
    ],
)
def test_bad_rows_of_a_data_frame_model_are_explained(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=message):
        ask(served(people_model(), tmp_path), request(row))


# --- bad rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,2", "the rows have 2 columns; LinearRegression was fitted with 3"),
        ("1,2,3\n4,x,6", "row 2, column 2: 'x' is not a number"),
        ("1,2,3\n4,,6", "row 2, column 2 is missing (NaN): Input X contains NaN"),
        ("1,2,inf", "row 1, column 3 is infinite or too large: Input X contains infinity"),
        ("", "the body is empty"),
    ],
)
def test_bad_rows_are_400_with_row_and_column(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        ask(served(LinearRegression().fit(X, Y), tmp_path), request(rows))
    assert caught.value.message.startswith(message)


def test_an_estimator_that_takes_nan_gets_it(tmp_path: Path) -> None:
    pipeline = make_pipeline(SimpleImputer(), LinearRegression()).fit(X, Y)
    np.testing.assert_allclose(pipeline.predict([[1, np.nan, 2]]), answer(served(pipeline, tmp_path), "1,,2"))


# --- stacking


def test_stacked_requests_get_their_own_rows_and_methods(tmp_path: Path) -> None:
    logistic = LogisticRegression().fit(X, Y)
    model = served(logistic, tmp_path)
    asked = [
        request(csv(row), attributes="method=predict_proba" if i % 2 else None) for i, row in enumerate(X)
    ]
    for i, outcome in enumerate(ask(model, *asked)):
        method = logistic.predict_proba if i % 2 else logistic.predict
        np.testing.assert_allclose(json.loads(body(outcome)), method(X[i : i + 1]), rtol=1e-12)


class OwnScaler(StandardScaler):
    """Stands for people's own estimators."""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), True),
        (RandomForestClassifier(3, random_state=0), True),
        (GridSearchCV(LogisticRegression(), {"C": [1.0]}), True),
        (make_pipeline(OwnScaler(), LogisticRegression()), False),
        (make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()), True),
        (make_pipeline(FunctionTransformer(np.flip), LogisticRegression()), False),
        (make_pipeline(FunctionTransformer(lambda x: x - x.mean()), LogisticRegression()), False),
    ],
)
def test_only_estimators_known_to_be_row_wise_are_stacked(model: Any, expected: bool) -> None:
    handler = SklearnHandler({})
    handler.prepare(model.fit(np.abs(X), Y))
    assert expected == handler.row_wise


# --- loading


def test_n_jobs_is_one_everywhere_inside() -> None:
    forest = RandomForestClassifier(2, random_state=0)
    models = [
        GridSearchCV(make_pipeline(StandardScaler(), forest), {}, cv=2).fit(X, Y),
        CalibratedClassifierCV(forest, cv=2).fit(X, Y),
        GradientBoostingClassifier(n_estimators=2).fit(X, Y),
    ]
    inner = [
        models[0],
        models[0].best_estimator_.steps[1][1],
        models[1].calibrated_classifiers_[1].estimator,
    ]
    for part in inner:
        part.n_jobs = 4  # set after fitting: a fit with it would start processes
    for model in models:
        SklearnHandler({}).prepare(model)
    assert [part.n_jobs for part in inner] == [1, 1, 1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearRegression(), r"LinearRegression in model\.joblib is not fitted: call fit before you save it"),
        (
            {"model": 1},
            r"dict in model\.joblib has none of predict, transform, .*; write model_fn or predict_fn",
        ),
        (DBSCAN().fit(X), r"DBSCAN in model\.joblib has none of predict"),
    ],
)
def test_what_cannot_predict_fails_the_load(model: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=message):
        served(model, tmp_path)


def test_a_version_mismatch_is_named_when_a_prediction_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline(SimpleImputer(), LinearRegression()).fit(X, Y)
    del pipeline[0].statistics_  # as when an attribute has another name in a newer version
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "1.2.2")
        joblib.dump(pipeline, tmp_path / "model.joblib")
    model = transformer(SklearnHandler({}), tmp_path)
    with pytest.raises(PredictionFailed) as caught:
        ask(model, request(csv(X[0])))
    here = sklearn.__version__
    assert caught.value.message.startswith("Pipeline in model.joblib cannot predict: ")
    assert caught.value.message.endswith(
        f"; trained with scikit-learn 1.2.2, this image has {here}: "
        f"train again with {here} or build an image with scikit-learn==1.2.2"
    )


def test_warm_up_starts_no_thread() -> None:
    program = (
        "import os; from mmekit_handlers.sklearn import SklearnHandler; SklearnHandler.warm_up(); "
        "print(len(os.listdir('/proc/self/task')))"
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, check=True)
    assert done.stdout.strip() == b"1"
