"""Bad input: nothing hangs, the server stays up, others keep answering, each answer says what was wrong."""

from __future__ import annotations

import io
import json
import pickle
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmekit_toolkit.contract.watch import Watch
from tests.support.framework_models import pytorch_model, sklearn_model, xgboost_model
from tests.support.server import MODELS, Answer, Server, until

GOOD = ["good-own", "good-pytorch", "good-sklearn", "good-xgboost"]
ROW = "1,2,3,4"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("good")
    with Server(MMEKIT_PRELOAD="auto", SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="50") as server:
        for name, make in (
            ("xgboost", xgboost_model),
            ("sklearn", sklearn_model),
            ("pytorch", pytorch_model),
        ):
            assert server.load(f"good-{name}", make(folder / name).folder).status == 200
        assert server.load("good-own", MODELS / "echo").status == 200
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The server; after each test it is up, the good models answer, and no other is listed."""
    pid = running.pid
    yield running
    for name in running.models():
        if name not in GOOD:
            assert running.unload(name).status == 200
    assert running.models() == GOOD
    assert running.get("/ping").status == 200
    assert running.pid == pid
    assert running.process
    assert running.process.poll() is None
    for name in GOOD:
        answer = running.invoke(name, ROW, "text/csv")
        assert answer.status == 200, answer.body


def folder_with(tmp_path: Path, **files: bytes | str) -> Path:
    """Return a folder with these files; ``__`` in a name stands for a dot."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def program(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "own"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(text)
    return folder


# --- requests that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (b"GARBAGE\r\n\r\n", 400, "Invalid HTTP message"),
        (b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n", 400, "Invalid HTTP message"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "Invalid HTTP message"),
        (b"POST /models HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "Invalid HTTP message"),
        (b"GET /models/%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "two hex digits"),
        (b"GET /models/%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "not UTF-8"),
        (b"GET /models?limit=%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400, "two hex digits"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "8190 bytes"),
        (b"GET /ping HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431, "32768 bytes"),
    ],
)
def test_malformed_http_is_answered_with_what_is_wrong(
    server: Server, sent: bytes, status: int, says: str
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received
    error = json.loads(body)
    assert error["code"] == status
    assert says in error["message"]


def test_a_body_over_the_limit_is_refused_before_it_is_read_and_the_setting_named(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        head = b"POST /models/good-own/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % (25 * 1024 * 1024 + 1))
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 413 ")
    error = json.loads(received.partition(b"\r\n\r\n")[2])
    assert error == {
        "code": 413,
        "type": "PayloadTooLargeException",
        "message": "The request body has 26214401 bytes; the limit is 26214400 bytes "
        "(SAGEMAKER_MAX_PAYLOAD_IN_MB).",
    }


def test_a_client_that_sends_all_of_a_body_over_the_limit_gets_the_413_too(server: Server) -> None:
    answer = server.invoke("good-own", b"x" * (26 * 1024 * 1024))
    assert answer.status == 413
    assert "SAGEMAKER_MAX_PAYLOAD_IN_MB" in answer.message


# --- loads: the request ---------------------------------------------------------------------------------

_EXAMPLE = "Expected the model's folder or archive, such as /opt/ml/models/NAME/model."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "The body is not JSON: Expecting value: line 1 column 1 (char 0)."),
        ('{"model_name": "m", "url": ', "The body is not JSON: Expecting value: line 1 column 28 (char 27)."),
        (
            "[1, 2]",
            'The body must be a JSON object such as {"model_name": …, "url": …}, not an array.',
        ),
        ("null", 'The body must be a JSON object such as {"model_name": …, "url": …}, not null.'),
        ('"text"', 'The body must be a JSON object such as {"model_name": …, "url": …}, not a string.'),
        ("{}", f"Parameter url is required. {_EXAMPLE}"),
        ('{"model_name": "m"}', f"Parameter url is required. {_EXAMPLE}"),
        ('{"model_name": "m", "url": ""}', f"Parameter url is required. {_EXAMPLE}"),
        ('{"model_name": "m", "url": null}', f"Parameter url is required. {_EXAMPLE}"),
        ('{"model_name": "m", "url": 7}', "Parameter url must be a string, not a number."),
        ('{"model_name": "m", "url": ["/a"]}', "Parameter url must be a string, not an array."),
        ('{"model_name": {"a": 1}, "url": "/a"}', "Parameter model_name must be a string, not an object."),
        (
            '{"model_name": "m", "url": "/a", "handler": true}',
            "Parameter handler must be a string, not a boolean.",
        ),
        ("[" * 100_000, None),
        (b'{"model_name": "\xff", "url": "/a"}', None),
    ],
)
def test_a_load_with_a_bad_body_is_a_400_that_names_the_parameter(
    server: Server, body: str | bytes, message: str | None
) -> None:
    answer = server.request("POST", "/models", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    if message is None:
        assert answer.message.startswith("The body is not JSON: ")
    else:
        assert answer.message == message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch_size", -1, "a whole number from 1 to 10000, not -1"),
        ("batch_size", 0, "a whole number from 1 to 10000, not 0"),
        ("batch_size", "many", "a whole number from 1 to 10000, not 'many'"),
        ("batch_size", 1.5, "a whole number from 1 to 10000, not 1.5"),
        ("batch_size", True, "a whole number from 1 to 10000, not True"),
        ("batch_size", 10**30, f"a whole number from 1 to 10000, not {10**30}"),
        ("max_batch_delay", -1, "a whole number from 0 to 3600000, not -1"),
        ("max_batch_delay", 10**400, "a whole number from 0 to 3600000, not 1000000000"),
        ("initial_workers", -2, "a whole number from 0 to 1024, not -2"),
        ("initial_workers", 10**9, "a whole number from 0 to 1024, not 1000000000"),
        ("response_timeout", 0, "a whole number from 1 to 86400, not 0"),
        ("response_timeout", [], "a whole number from 1 to 86400, not []"),
    ],
)
def test_a_load_with_a_number_out_of_range_is_a_400_that_names_it(
    server: Server, name: str, value: Any, expected: str
) -> None:
    answer = server.load("bad", MODELS / "echo", **{name: value})
    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert answer.message.startswith(f"Parameter {name} must be {expected}")
    assert len(answer.message) < 300


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"model_name": "\ud800"}, "Parameter model_name"),
        ({"url": "/tmp/\ud800"}, "Parameter url"),
        ({"handler": "a:\udfff"}, "Parameter handler"),
    ],
)
def test_texts_that_are_no_unicode_are_refused(server: Server, parameters: dict[str, str], says: str) -> None:
    body = json.dumps({"model_name": "bad", "url": str(MODELS / "echo"), **parameters})
    answer = server.request("POST", "/models", body, {"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.message.startswith(says)
    assert "surrogate" in answer.message


def test_a_name_that_no_request_could_address_is_refused(server: Server) -> None:
    answer = server.load("模" * 1000, MODELS / "echo")
    assert answer.status == 400
    assert answer.message == (
        "Parameter model_name has 9000 bytes in a path (percent-encoded); at most 8000 can be addressed."
    )


# --- loads: the folder ------------------------------------------------------------------------------------


def missing(_: Path) -> Path:
    return Path("/opt/ml/models/nobody/model")


def a_file(tmp_path: Path) -> Path:
    file = tmp_path / "model.tar.gz"
    file.write_bytes(b"\x1f\x8b")
    return file


def empty(tmp_path: Path) -> Path:
    return folder_with(tmp_path)


def zero_byte(_: Path) -> Path:
    return Path("/tmp/a\0b")


def unknown_files(tmp_path: Path) -> Path:
    return folder_with(tmp_path, weights__onnx=b"\x08\x07\x12")


def packed_with_its_folder(tmp_path: Path) -> Path:
    folder = folder_with(tmp_path)
    xgboost_model(folder / "my-model")
    return folder


def two_frameworks(tmp_path: Path) -> Path:
    folder = folder_with(tmp_path)
    xgboost_model(folder)
    pytorch_model(folder)
    return folder


def corrupt_xgboost(tmp_path: Path) -> Path:
    folder = xgboost_model(tmp_path / "corrupt").folder
    data = (folder / "model.ubj").read_bytes()
    (folder / "model.ubj").write_bytes(data[: len(data) // 2])
    return folder


def corrupt_sklearn(tmp_path: Path) -> Path:
    folder = sklearn_model(tmp_path / "corrupt").folder
    data = (folder / "model.pkl").read_bytes()
    (folder / "model.pkl").write_bytes(data[: len(data) // 2])
    return folder


def corrupt_pytorch(tmp_path: Path) -> Path:
    folder = pytorch_model(tmp_path / "corrupt").folder
    data = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(data[: len(data) // 2])
    return folder


def not_a_model(tmp_path: Path) -> Path:
    return folder_with(tmp_path, model__pkl=pickle.dumps({"weights": [1, 2, 3]}))


def unmet_requirement(tmp_path: Path) -> Path:
    folder = sklearn_model(tmp_path / "bad").folder
    (folder / "requirements.txt").write_text("numpy>=1\nno-such-package-here==7.1\n")
    return folder


def bad_manifest(tmp_path: Path) -> Path:
    folder = folder_with(tmp_path)
    (folder / "MAR-INF").mkdir()
    (folder / "MAR-INF" / "MANIFEST.json").write_text("{")
    return folder


def model_named(name: str) -> Callable[[Path], Path]:
    def make(_: Path) -> Path:
        return MODELS / name

    make.__name__ = name
    return make


FOLDERS: list[tuple[Callable[[Path], Path], int, str, list[str]]] = [
    (missing, 404, "ModelNotFoundException", ["/opt/ml/models/nobody/model", "No such file"]),
    (zero_byte, 404, "ModelNotFoundException", ["not a path"]),
    (a_file, 400, "InvalidModelException", ["model.tar.gz cannot be used", "damaged or incomplete"]),
    (empty, 400, "InvalidModelException", ["is empty"]),
    (unknown_files, 400, "InvalidModelException", ["has: weights.onnx", "code/inference.py"]),
    (packed_with_its_folder, 400, "InvalidModelException", ["holds only the folder 'my-model'", "tar -czf"]),
    (two_frameworks, 400, "InvalidModelException", ["several frameworks", "model.pt", "model.ubj"]),
    (bad_manifest, 400, "InvalidModelException", ["Failed to parse MAR-INF/MANIFEST.json"]),
    (corrupt_xgboost, 500, "InternalServerException", ["model.ubj cannot be read", "3.0.5", "damaged"]),
    (corrupt_sklearn, 500, "InternalServerException", ["model.pkl"]),
    (corrupt_pytorch, 400, "InvalidModelException", ["model.pt is damaged or truncated"]),
    (not_a_model, 500, "InternalServerException", ["dict"]),
    (unmet_requirement, 500, "InternalServerException", ["no-such-package-here==7.1"]),
    (model_named("syntax_error"), 500, "InternalServerException", ["SyntaxError", "inference.py:2"]),
    (model_named("exit_on_import"), 500, "InternalServerException", ["exit(3)", "inference.py:3"]),
    (
        model_named("raises_on_load"),
        500,
        "InternalServerException",
        ["ValueError: no weights", "inference.py:2"],
    ),
    (
        model_named("import_missing_module"),
        500,
        "InternalServerException",
        ["ModuleNotFoundError", "a_module_that_nobody_has", "inference.py:1"],
    ),
    (
        model_named("defines_nothing"),
        500,
        "InternalServerException",
        ["inference.py defines none of"],
    ),
    (model_named("two_classes"), 500, "InternalServerException", ["First, Second"]),
    (model_named("class_fails_to_initialize"), 500, "InternalServerException", ["OSError", "service.py:3"]),
    (model_named("segfaults_on_load"), 500, "InternalServerException", ["SIGSEGV", "while it was loaded"]),
    (model_named("out_of_memory_on_load"), 507, "InternalServerException", ["40 GiB for the weights"]),
]


@pytest.mark.parametrize(
    ("make", "status", "kind", "says"), FOLDERS, ids=[make.__name__ for make, *_ in FOLDERS]
)
def test_a_load_that_fails_says_why_is_not_listed_and_leaves_its_name_free(
    server: Server, tmp_path: Path, make: Callable[[Path], Path], status: int, kind: str, says: list[str]
) -> None:
    url = make(tmp_path)
    for _ in range(2):
        answer = server.load("bad", url)
        assert (answer.status, answer.json["type"]) == (status, kind), answer.body
        for words in says:
            assert words in answer.message
        assert server.models() == GOOD
        assert server.get("/models/bad").status == 404
    assert server.load("bad", MODELS / "echo").status == 200, "the name is free"
    assert server.invoke("bad", "hello").text == "hello"


def test_an_endless_import_ends_at_the_load_deadline(tmp_path: Path) -> None:
    with Server(MMEKIT_LOAD_TIMEOUT_SECONDS="4") as server:
        assert server.load("good-own", MODELS / "echo").status == 200
        load = server.later(server.load, "bad", MODELS / "endless_import")
        until(lambda: load.done() or "loading" in server.invoke("bad", b"").text)
        assert server.invoke("good-own", ROW).status == 200
        answer = load.result()
        assert (answer.status, answer.json["type"]) == (504, "PredictionTimeoutException")
        assert "did not end within 4 s" in answer.message
        assert "MMEKIT_LOAD_TIMEOUT_SECONDS" in answer.message
        assert 4 <= answer.seconds < 20
        assert server.load("bad", MODELS / "echo").status == 200


def test_a_name_loaded_already_is_a_409_that_does_not_touch_the_model(server: Server) -> None:
    answer = server.load("good-own", "/nowhere")
    assert (answer.status, answer.json["type"]) == (409, "ConflictStatusException")
    assert answer.message == "Model good-own is already registered."


def test_the_same_bad_name_loaded_many_times_at_once_leaves_nothing(server: Server) -> None:
    loads = [server.later(server.load, "bad", MODELS / "raises_on_load") for _ in range(12)]
    statuses = {load.result().status for load in loads}
    assert statuses <= {500, 409}
    assert 500 in statuses


# --- invocations ----------------------------------------------------------------------------------------


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


FRAMEWORKS = ["good-xgboost", "good-sklearn", "good-pytorch"]


def expect(answer: Answer, status: int, *says: str) -> None:
    assert answer.status == status, answer.body
    for words in says:
        assert words in answer.message


def test_a_model_that_is_not_loaded_is_a_404(server: Server) -> None:
    expect(server.invoke("nobody", ROW), 404, "Model not found: nobody")


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("1,2,3", "text/csv"),
        ("1,2,3,4,5,6,7", "text/csv"),
        ("[[1, 2, 3]]", "application/json"),
        (npy(np.zeros((2, 9))), "application/x-npy"),
    ],
)
def test_a_wrong_column_count_is_a_400_that_gives_both_counts(
    server: Server, name: str, body: str | bytes, content_type: str
) -> None:
    answer = server.invoke(name, body, content_type)
    expect(answer, 400, "4")
    width = {"1,2,3": "3", "1,2,3,4,5,6,7": "7", "[[1, 2, 3]]": "3"}.get(str(body), "9")
    assert width in answer.message


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        ("1,2,3,4\n1,2,three,4", "text/csv", ["row 2", "column 3", "'three'"]),
        ('[[1, 2, 3, 4], [1, "two", 3, 4]]', "application/json", ["row 2", "column 2", "two"]),
        ('{"instances": [[1, 2, 3, null, 5], [1]]}', "application/json", []),
        ("1,2,3,4\n1,2", "text/csv", ["row 2"]),
        ("[[1, 2], [3", "application/json", ["JSON"]),
        ('{"rows": [[1, 2, 3, 4]]}', "application/json", ["row 1, column 1 (rows)"]),
        (b"\x93NUMPY\x01\x00", "application/x-npy", ["npy"]),
        (npy(np.array([{"a": 1}], dtype=object), True), "application/x-npy", ["object"]),
        (b"\xff\xfe1,2,3,4", "text/csv", []),
    ],
)
def test_a_value_that_is_no_number_is_a_400_that_gives_row_and_column(
    server: Server, name: str, body: str | bytes, content_type: str, says: list[str]
) -> None:
    expect(server.invoke(name, body, content_type), 400, *says)


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("content_type", ["text/csv", "application/json", "application/x-npy"])
def test_an_empty_body_is_a_400_that_says_so(server: Server, name: str, content_type: str) -> None:
    answer = server.invoke(name, b"", content_type)
    expect(answer, 400)
    assert "empty" in answer.message


def test_nan_is_a_missing_value_to_xgboost_and_a_400_to_a_linear_model(server: Server) -> None:
    for body, content_type in (("1,nan,3,4", "text/csv"), ("[[1, null, 3, 4]]", "application/json")):
        assert server.invoke("good-xgboost", body, content_type).status == 200
        answer = server.invoke("good-sklearn", body, content_type)
        expect(answer, 400, "NaN")


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_body_type_that_a_model_cannot_read_is_a_415_that_lists_those_it_can(
    server: Server, name: str
) -> None:
    answer = server.invoke(name, b"\x89PNG", "image/png")
    expect(answer, 415, "image/png", "text/csv", "application/json")
    assert answer.json["type"] == "UnsupportedMediaTypeException"


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_answer_type_that_a_model_cannot_give_is_a_406_that_lists_those_it_can(
    server: Server, name: str
) -> None:
    answer = server.invoke(name, ROW, "text/csv", Accept="image/png, text/html;q=0.5")
    expect(answer, 406, "image/png", "text/csv", "application/json")
    assert answer.json["type"] == "NotAcceptableException"


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_body_of_twenty_megabytes_is_answered_and_disturbs_nobody(server: Server, name: str) -> None:
    rows = 20_000_000 // (4 * 8)
    large = server.later(server.invoke, name, npy(np.ones((rows, 4))), "application/x-npy", Accept="text/csv")
    slowest = _slowest_ping_until_done(server, large)
    answer = large.result()
    assert answer.status == 200, answer.body[:300]
    assert len(answer.body.split()) >= 1
    assert slowest < 1


def _slowest_ping_until_done(server: Server, large: Future[Answer]) -> float:
    """Ask for others meanwhile; return the seconds of the slowest ping, less those of the machine."""
    slowest = 0.0
    with Watch() as watch:
        while not large.done():
            slowest = max(slowest, server.get("/ping").seconds)
            assert server.invoke("good-own", "x").status == 200
    return slowest - watch.lost_s


def test_a_text_body_of_twenty_megabytes_with_one_bad_value_names_its_place(server: Server) -> None:
    body = b"-1.234567890123456789,-1.234567890123456789,3,4\n" * 420_000 + b"1,2,x,4\n"
    large = server.later(server.invoke, "good-xgboost", body, "text/csv")
    assert _slowest_ping_until_done(server, large) < 1
    expect(large.result(), 400, "row 420001, column 3", "'x'")


def test_a_handler_that_raises_is_answered_with_class_text_and_place(server: Server, tmp_path: Path) -> None:
    code = """
import json

def model_fn(model_dir):
    return {}

def predict_fn(data, model):
    return helper(model)

def helper(model):
    raise LookupError("no calibration for 'DE'")
"""
    assert server.load("bad", program(tmp_path, code)).status == 200
    answer = server.invoke("bad", "[1]", "application/json")
    expect(answer, 500)
    assert answer.message == "Prediction failed: LookupError: no calibration for 'DE' (inference.py:11)"
    assert answer.json["type"] == "InternalServerException"


def test_a_handler_that_returns_the_wrong_type_is_told_so(server: Server) -> None:
    assert server.load("bad", MODELS / "returns_wrong_type").status == 200
    expect(server.invoke("bad", "[1]", "application/json"), 500, "object", "transform_fn")


def test_a_handler_that_calls_exit_is_answered_and_goes_on(server: Server) -> None:
    assert server.load("bad", MODELS / "exits_in_handle").status == 200
    for _ in range(4):
        expect(server.invoke("bad", "[1]", "application/json"), 500, "exit('giving up')", "inference.py:9")


def test_a_handler_that_prints_megabytes_answers(server: Server) -> None:
    assert server.load("bad", MODELS / "prints_megabytes").status == 200
    assert server.invoke("bad", "[1]", "application/json").text == "printed"


def test_memory_that_is_short_while_predicting_is_a_507(server: Server) -> None:
    assert server.load("bad", MODELS / "out_of_memory_on_predict").status == 200
    answer = server.invoke("bad", "[1]", "application/json")
    expect(answer, 507, "Out of resources: MemoryError")
    assert answer.json["type"] == "InternalServerException"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Note", "a\\r\\nX-Evil: b"),
        ("X-Note", "a\\nX-Evil: b"),
        ("X-Note", "a\\r\\n\\r\\nHTTP/1.1 200 OK"),
        ("Content-Type", "text/plain\\r\\nX-Evil: b"),
        ("X-Evil: b\\r\\nX-Note", "a"),
        ("X-Note", "zero \\0 byte"),
    ],
)
def test_line_breaks_in_a_handlers_headers_are_a_500_and_nothing_is_injected(
    server: Server, tmp_path: Path, name: str, value: str
) -> None:
    code = f"""
def model_fn(model_dir):
    return None

def transform_fn(model, input_data, content_type, accept, context):
    context.set_response_header(0, "{name}", "{value}")
    return "body", "text/plain"
"""
    assert server.load("bad", program(tmp_path, code)).status == 200
    answer = server.invoke("bad", "x")
    expect(answer, 500, "header")
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("content_type", ["text/plain\\r\\nX-Evil: b", "grüße 模", "a\\0b"])
def test_a_content_type_that_is_none_is_a_500(server: Server, tmp_path: Path, content_type: str) -> None:
    code = f"""
def model_fn(model_dir):
    return None

def transform_fn(model, input_data, content_type, accept):
    return (iter([b"a", b"b"]) if input_data == b"stream" else b"body"), "{content_type}"
"""
    assert server.load("bad", program(tmp_path, code)).status == 200
    for body in ("x", "stream"):
        answer = server.invoke("bad", body)
        expect(answer, 500)
        assert "x-evil" not in answer.headers
