"""Real models of the three frameworks over HTTP answer what the frameworks themselves answer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.framework_models import FRAMEWORKS, Trained, rows, sklearn_model, xgboost_model
from tests.support.server import Answer, Server

CONCURRENCY = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("trained")
    return {name: make(folder / name) for name, make in FRAMEWORKS.items()}


@pytest.fixture(scope="module")
def server(trained: dict[str, Trained]) -> Iterator[Server]:
    with Server(MMEKIT_PRELOAD="auto", MMEKIT_WORKERS="1", MMEKIT_MAX_COPIES="1") as server:
        for name, model in trained.items():
            answer = server.load(name, model.folder)
            assert answer.status == 200, answer.body
        yield server


def csv(x: np.ndarray) -> bytes:
    return "\n".join(",".join(map(str, row)) for row in x.tolist()).encode()


def npy(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


BODIES = {
    "csv": lambda x: (csv(x), "text/csv"),
    "csv with a header": lambda x: (b"a,b,c,d\n" + csv(x), "text/csv; charset=utf-8"),
    "json list": lambda x: (json.dumps(x.tolist()).encode(), "application/json"),
    "json instances": lambda x: (json.dumps({"instances": x.tolist()}).encode(), "application/json"),
    "json inputs": lambda x: (json.dumps({"inputs": x.tolist()}).encode(), "application/json"),
    "json lines": lambda x: ("\n".join(map(json.dumps, x.tolist())).encode(), "application/jsonlines"),
    "npy": lambda x: (npy(x), "application/x-npy"),
}


def predictions(answer: Answer) -> np.ndarray:
    """Read an answer of any type as one number a row."""
    assert answer.status == 200, answer.body
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "text/csv":
        return np.array(answer.text.replace("\n", ",").rstrip(",").split(","), float)
    if kind == "application/x-npy":
        return np.load(io.BytesIO(answer.body)).reshape(-1)
    if kind == "application/jsonlines":
        found = [json.loads(line) for line in answer.text.splitlines()]
    else:
        assert kind == "application/json"
        found = answer.json
        found = found["predictions"] if isinstance(found, dict) else found
    return np.array([each["score"] if isinstance(each, dict) else each for each in found], float).reshape(-1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("count", [1, 7])
def test_predictions_are_those_of_the_framework(
    server: Server, trained: dict[str, Trained], framework: str, body: str, count: int
) -> None:
    x = rows(count, seed=5)
    content, content_type = BODIES[body](x)
    answer = server.invoke(framework, content, content_type)
    expected = trained[framework].predict(x).reshape(-1)
    np.testing.assert_allclose(predictions(answer), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("text/csv", "text/csv"),
        ("application/json", "application/json"),
        ("application/x-npy", "application/x-npy"),
        ("image/png, text/csv;q=0.3, application/x-npy;q=0.9", "application/x-npy"),
        ("text/*;q=0.8, application/json;q=0.1", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
    ],
)
def test_the_answer_has_the_type_that_accept_wants_most(
    server: Server, trained: dict[str, Trained], framework: str, accept: str, given: str
) -> None:
    x = rows(3, seed=6)
    answer = server.invoke(framework, csv(x), "text/csv", Accept=accept)
    assert answer.headers["content-type"].partition(";")[0] == given
    np.testing.assert_allclose(
        predictions(answer), trained[framework].predict(x).reshape(-1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_of_many_requests_at_once_each_gets_its_own_answer(
    server: Server, trained: dict[str, Trained], framework: str
) -> None:
    x = rows(4 * CONCURRENCY, seed=7)
    expected = trained[framework].predict(x).reshape(-1)
    kinds = ["text/csv", "application/json"]
    calls = [
        server.later(server.invoke, framework, csv(x[i : i + 1]), "text/csv", Accept=kinds[i % 2])
        for i in range(len(x))
    ]
    answers = [call.result() for call in calls]
    for i, answer in enumerate(answers):
        assert answer.headers["content-type"].startswith(kinds[i % 2])
        np.testing.assert_allclose(predictions(answer), expected[i : i + 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("framework", ["xgboost", "sklearn"])
def test_one_bad_row_among_many_requests_gets_its_400_alone(
    server: Server, trained: dict[str, Trained], framework: str
) -> None:
    x = rows(2 * CONCURRENCY, seed=8)
    expected = trained[framework].predict(x).reshape(-1)
    bad = {5: b"1,2,oops,4", 20: b"1,2,3,4,5,6", 40: b""}
    calls = [
        server.later(server.invoke, framework, bad.get(i, csv(x[i : i + 1])), "text/csv")
        for i in range(len(x))
    ]
    answers = [call.result() for call in calls]
    assert {i for i, answer in enumerate(answers) if answer.status == 400} == set(bad)
    assert "'oops'" in answers[5].message
    for i, answer in enumerate(answers):
        if i not in bad:
            np.testing.assert_allclose(predictions(answer), expected[i : i + 1], rtol=1e-5, atol=1e-6)


def test_requests_of_several_widths_and_types_at_once_are_not_mixed(
    server: Server, trained: dict[str, Trained]
) -> None:
    x = rows(CONCURRENCY * 6, seed=9).reshape(CONCURRENCY, 6, 4)
    kinds = list(BODIES.values())
    calls = []
    for i, block in enumerate(x):
        content, content_type = kinds[i % len(kinds)](block[: 1 + i % 6])
        calls.append(server.later(server.invoke, "xgboost", content, content_type))
    for i, call in enumerate(calls):
        expected = trained["xgboost"].predict(x[i][: 1 + i % 6])
        np.testing.assert_allclose(predictions(call.result()), expected, rtol=1e-5, atol=1e-6)


COUNTS_ROWS = """
import numpy as np
import time
row_wise = True

def predict_fn(data, model):
    time.sleep(0.1)
    return np.full(len(data), len(data))
"""


def test_what_waits_goes_in_one_call_and_at_most_64_rows_of_it(server: Server, tmp_path: Path) -> None:
    """Batch what waits: while one call runs, requests gather; a lone one does not wait."""
    assert server.load("counts", with_code(sklearn_model(tmp_path / "m").folder, COUNTS_ROWS)).status == 200
    assert predictions(server.invoke("counts", "1,2,3,4", "text/csv")).tolist() == [1]
    calls = [server.later(server.invoke, "counts", csv(rows(3)), "text/csv") for _ in range(60)]
    stacked = [predictions(call.result()).tolist() for call in calls]
    assert all(len(answer) == 3 for answer in stacked)
    most = max(answer[0] for answer in stacked)
    assert 6 <= most <= 64
    assert most % 3 == 0
    assert server.unload("counts").status == 200


# --- models that bring more than a file --------------------------------------------------------------


def with_code(folder: Path, text: str) -> Path:
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(text)
    return folder


MODEL = """
import pickle
def model_fn(model_dir):
    with open(model_dir + "/model.pkl", "rb") as file:
        return pickle.load(file)
"""
INPUT = """
def input_fn(input_data, content_type):
    assert content_type == "application/x-mine"
    return [[float(field) for field in input_data.decode().split(";")]]
"""
PREDICT = """
def predict_fn(data, model):
    return model.predict(data) * 10
"""
OUTPUT = """
def output_fn(prediction, accept):
    return f"<{prediction[0]:.6f}>", "application/x-mine"
"""
TRANSFORM = """
def transform_fn(model, input_data, content_type, accept):
    data = [[float(field) for field in input_data.decode().split(";")]]
    return f"<{model.predict(data)[0]:.6f}>", "application/x-mine"
"""
CONTEXT = """
def predict_fn(data, model, context):
    assert context.get_request_header(0, "x-amzn-sagemaker-custom-attributes") == "times=10"
    context.set_response_header(0, "X-Model", context.model_name)
    return model.predict(data) * 10
"""


@pytest.mark.parametrize(
    ("code", "mine_in", "mine_out", "factor"),
    [
        (MODEL, False, False, 1),
        (INPUT, True, False, 1),
        (PREDICT, False, False, 10),
        (OUTPUT, False, True, 1),
        (MODEL + INPUT + PREDICT + OUTPUT, True, True, 10),
        (INPUT + OUTPUT, True, True, 1),
        (MODEL + TRANSFORM, True, True, 1),
        (TRANSFORM, True, True, 1),
        (CONTEXT, False, False, 10),
    ],
)
def test_own_functions_replace_those_of_the_framework_one_by_one(
    server: Server, tmp_path: Path, code: str, mine_in: bool, mine_out: bool, factor: int
) -> None:
    model = sklearn_model(tmp_path / "own")
    assert server.load("own", with_code(model.folder, code)).status == 200
    try:
        x = rows(1, seed=10)
        body = csv(x).replace(b",", b";") if mine_in else csv(x)
        answer = server.invoke(
            "own",
            body,
            "application/x-mine" if mine_in else "text/csv",
            X_Amzn_SageMaker_Custom_Attributes="times=10",
        )
        assert answer.status == 200, answer.body
        expected = factor * model.predict(x)[0]
        if mine_out:
            assert answer.headers["content-type"] == "application/x-mine"
            assert answer.text == f"<{expected:.6f}>"
        else:
            np.testing.assert_allclose(predictions(answer), [expected], rtol=1e-5, atol=1e-6)
        assert (answer.headers.get("x-model") == "own") == ("X-Model" in code)
    finally:
        assert server.unload("own").status == 200


def test_transform_fn_beside_predict_fn_fails_the_load(server: Server, tmp_path: Path) -> None:
    folder = with_code(sklearn_model(tmp_path / "own").folder, PREDICT + TRANSFORM)
    answer = server.load("own", folder)
    assert answer.status == 500
    assert "transform_fn" in answer.message
    assert "predict_fn" in answer.message


@pytest.mark.parametrize(
    ("requirement", "says"),
    [
        ("no-such-package-here", ["no-such-package-here", "not installed"]),
        ("numpy<1.0", ["numpy<1.0"]),
        ("xgboost-cpu==9.9", ["xgboost-cpu==9.9"]),
    ],
)
def test_a_requirement_that_the_image_does_not_meet_fails_the_load_and_is_named(
    server: Server, tmp_path: Path, requirement: str, says: list[str]
) -> None:
    folder = with_code(xgboost_model(tmp_path / "picky").folder, PREDICT)
    (folder / "code" / "requirements.txt").write_text(f"# what it needs\nnumpy>=1.20\n{requirement}\n")
    answer = server.load("picky", folder)
    assert answer.status == 500, answer.body
    for words in says:
        assert words in answer.message
    assert "picky" not in server.models()


def test_requirements_that_the_image_meets_do_not_matter(server: Server, tmp_path: Path) -> None:
    folder = xgboost_model(tmp_path / "content").folder
    (folder / "requirements.txt").write_text("numpy>=1.20  # any\n\nxgboost-cpu\n")
    assert server.load("content", folder).status == 200
    assert server.unload("content").status == 200


def test_an_answer_type_for_all_models_can_be_set(trained: dict[str, Trained]) -> None:
    with Server(
        MMEKIT_PRELOAD="mmekit_handlers.sklearn", SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv"
    ) as server:
        assert server.load("m", trained["sklearn"].folder).status == 200
        for accept in ({}, {"Accept": "*/*"}):
            answer = server.invoke("m", csv(rows(2)), "text/csv", **accept)
            assert answer.headers["content-type"].startswith("text/csv")
        answer = server.invoke("m", csv(rows(2)), "text/csv", Accept="application/json")
        assert answer.headers["content-type"] == "application/json"
