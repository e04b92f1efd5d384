"""Handler services of sagemaker-inference run unchanged, whichever way a model brings its code."""

from __future__ import annotations

import http.client
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from sagemaker_inference import content_types

from mmekit.choice import ImageCode
from mmekit.worker import loader
from tests.support.models import ask, body_of, load_message, loaded
from tests.support.server import Server

DEFAULT_SERVICE = "sagemaker_inference.default_handler_service"

PROGRAM = """
import helper

def model_fn(model_dir):
    return helper.NAME

def predict_fn(data, model):
    return [model, data.tolist()]
"""

#: An image's own service, as AWS's framework containers have one.
SERVICE = """
from sagemaker_inference import content_types, encoder
from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler
from sagemaker_inference.errors import BaseInferenceToolkitError, GenericInferenceToolkitError
from sagemaker_inference.transformer import Transformer

steps = []

class TooSmall(BaseInferenceToolkitError):
    def __init__(self):
        super().__init__(422, "the picture is too small", "Too\\r\\nSmall")

class Handler(DefaultInferenceHandler):
    def default_pre_model_fn(self, model_dir):
        steps.append("pre")

    def default_model_fn(self, model_dir, context=None):
        steps.append("model")
        return context.system_properties["model_dir"] == model_dir

    def default_model_warmup_fn(self, model_dir, model):
        steps.append("warmup")

    def default_predict_fn(self, data, model, context=None):
        if data.size == 0:
            raise GenericInferenceToolkitError(400, "no rows", "Empty")
        if data.size == 1:
            raise TooSmall()
        context.set_response_header(0, "X-Steps", ",".join(steps))
        return data * 2 if model else data

    def default_output_fn(self, prediction, accept, context=None):
        if accept == "application/x-own":
            return "own " + encoder.encode(prediction, content_types.CSV), accept
        return super().default_output_fn(prediction, accept, context)

class HandlerService(DefaultHandlerService):
    def __init__(self):
        super().__init__(transformer=Transformer(default_inference_handler=Handler()))
"""

#: The same by a function, in a module of its own.
BY_FUNCTION = """
from own_service import HandlerService

_service = None

def handle(data, context):
    global _service
    if _service is None:
        _service = HandlerService()
        _service.initialize(context)
    return None if data is None else _service.handle(data, context)
"""


def model(folder: Path, name: str, code: str = "", **files: str) -> Path:
    """Write a model folder with weights; ``code`` is where its files go."""
    path = folder / name
    (path / code).mkdir(parents=True)
    (path / "weights.dat").write_text("1")
    for stem, text in files.items():
        (path / code / f"{stem}.py").write_text(textwrap.dedent(text))
    return path


@pytest.fixture(scope="module")
def default_server() -> Iterator[Server]:
    with Server(SAGEMAKER_HANDLER=DEFAULT_SERVICE, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv") as server:
        yield server


@pytest.fixture(scope="module")
def image_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    (folder / "own_service.py").write_text(SERVICE)
    (folder / "by_function.py").write_text(BY_FUNCTION)
    return folder


@pytest.fixture(scope="module", params=["own_service", "own_service.py", "by_function:handle"])
def own_server(request: pytest.FixtureRequest, image_code: Path) -> Iterator[Server]:
    handler: str = request.param
    if handler.endswith(".py"):
        handler = str(image_code / handler)
    with Server(SAGEMAKER_HANDLER=handler, PYTHONPATH=str(image_code)) as server:
        yield server


def load(server: Server, path: Path) -> str:
    answer = server.load(path.name, path)
    assert answer.status == 200, answer.body
    return path.name


# --- the default service


@pytest.mark.parametrize("code", ["", "code"])
def test_the_default_service_runs_the_models_program(
    default_server: Server, tmp_path: Path, code: str
) -> None:
    names = [f"{word}-{code or 'top'}" for word in ("first", "second")]
    for name in names:
        load(default_server, model(tmp_path, name, code, inference=PROGRAM, helper=f"NAME = {name!r}\n"))
    for name in [*names, *names]:
        answer = default_server.invoke(name, "[1, 2]", content_types.JSON, Accept="application/json")
        assert answer.json == [name, [1, 2]]
        assert answer.headers["content-type"] == "application/json"


def test_each_function_may_be_written_and_take_the_context(default_server: Server, tmp_path: Path) -> None:
    program = """
    steps = []

    def pre_model_fn(model_dir):
        steps.append("pre")

    def model_fn(model_dir, context):
        steps.append(context.model_name)
        return "m"

    def model_warmup_fn(model_dir, model):
        steps.append("warmup " + model)

    def input_fn(data, content_type, context):
        return [content_type, data, context.get_request_header(0, "X-Custom")]

    def predict_fn(data, model, context):
        context.set_response_header(0, "X-Steps", ",".join(steps))
        return data

    def output_fn(prediction, accept, context):
        return repr(prediction), "text/" + accept
    """
    name = load(default_server, model(tmp_path, "all", inference=program))
    answer = default_server.invoke(name, b"\xff", "own/type", X_Custom="seen", Accept="any")
    assert answer.text == repr(["own/type", bytearray(b"\xff"), "seen"])
    assert answer.headers["content-type"] == "text/any"
    assert answer.headers["x-steps"] == "pre,all,warmup m"


def test_transform_fn_gets_text_for_json_and_the_default_accept(
    default_server: Server, tmp_path: Path
) -> None:
    program = """
    def model_fn(model_dir):
        return "m"

    def transform_fn(model, data, content_type, accept):
        return repr([model, data, content_type, accept])
    """
    name = load(default_server, model(tmp_path, "transforms", inference=program))
    answer = default_server.invoke(name, "[1]", content_types.JSON)
    assert answer.text == repr(["m", "[1]", "application/json", "text/csv"])
    assert answer.headers["content-type"] == "text/csv"


def test_what_cannot_be_decoded_is_a_500_with_the_toolkits_text(
    default_server: Server, tmp_path: Path
) -> None:
    name = load(default_server, model(tmp_path, "codecs", inference=PROGRAM, helper="NAME = 1\n"))
    answer = default_server.invoke(name, "x", "own/type")
    assert answer.status == 500
    assert answer.text.startswith("Content type own/type is not supported by this framework.")
    assert "Traceback (most recent call last)" in answer.text


def test_a_load_that_the_service_fails_is_a_failed_load(default_server: Server, tmp_path: Path) -> None:
    program = "def model_fn(model_dir):\n    raise OSError('no weights')\n"
    answer = default_server.load("broken", model(tmp_path, "broken", inference=program))
    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert answer.message == "Failed to start workers: OSError: no weights (inference.py:2)"
    assert default_server.get("/models/broken").status == 404


def test_a_model_without_a_program_has_no_model_fn(default_server: Server, tmp_path: Path) -> None:
    answer = default_server.load("bare", model(tmp_path, "bare"))
    assert answer.status == 500
    assert "Failed to start workers: NotImplementedError" in answer.message
    assert "Please provide a model_fn implementation." in answer.message


# --- an image's own service


def test_an_images_service_serves_models_without_code_in_a_shared_worker(
    own_server: Server, tmp_path: Path
) -> None:
    names = [load(own_server, model(tmp_path, name)) for name in ("a", "b")]
    for name in names:
        answer = own_server.invoke(name, "[1, 2]", content_types.JSON)
        assert (answer.status, answer.json) == (200, [2, 4])
        assert answer.headers["x-steps"].endswith("pre,model,warmup")
    for name in names:
        assert own_server.unload(name).status == 200


def test_an_images_service_runs_models_with_a_program_and_supplies_the_rest(
    own_server: Server, tmp_path: Path
) -> None:
    program = "def input_fn(data, content_type):\n    import numpy\n    return numpy.array([3, 4])\n"
    name = load(own_server, model(tmp_path, "partial", "code", inference=program))
    answer = own_server.invoke(name, "x", "own/type", Accept="application/x-own")
    assert (answer.status, answer.text.strip()) == (200, "own 6\n8")
    assert answer.headers["content-type"] == "application/x-own"
    assert own_server.unload(name).status == 200


@pytest.mark.parametrize(
    ("body", "status", "reason", "text"),
    [("[]", 400, "Empty", "no rows"), ("[1]", 422, "Too Small", "the picture is too small")],
)
def test_errors_of_the_toolkit_have_their_status_text_and_phrase(
    own_server: Server, tmp_path: Path, body: str, status: int, reason: str, text: str
) -> None:
    name = load(own_server, model(tmp_path, "errors"))
    connection = http.client.HTTPConnection("127.0.0.1", own_server.port, timeout=60)
    connection.request("POST", f"/models/{name}/invoke", body, {"Content-Type": content_types.JSON})
    answer = connection.getresponse()
    first, _, rest = answer.read().decode().partition("\n")
    assert (answer.status, answer.reason, first) == (status, reason, text)
    assert rest.startswith("Traceback (most recent call last)")
    assert answer.getheader("content-type") is None
    connection.close()
    assert own_server.unload(name).status == 200


# --- settings


def test_the_program_may_have_another_name_and_stand_in_the_image(tmp_path: Path) -> None:
    base = tmp_path / "base"
    code = model(base, "code", entry="def model_fn(model_dir):\n    return 1\n", other="")
    (code / "entry.py").write_text(
        "def model_fn(model_dir):\n    return 'of the image'\n"
        "def transform_fn(model, data, content_type, accept):\n    return model\n"
    )
    with Server(
        SAGEMAKER_HANDLER=DEFAULT_SERVICE, SAGEMAKER_PROGRAM="entry.py", SAGEMAKER_BASE_DIR=str(base)
    ) as server:
        load(server, model(tmp_path, "plain"))
        own = (code / "entry.py").read_text().replace("of the image", "of the model")
        load(server, model(tmp_path, "own", "code", entry=own))
        assert [server.invoke(name).text for name in ("plain", "own")] == ["of the image", "of the model"]


# --- in one process


def test_models_that_share_a_service_and_a_process_keep_their_programs_apart(tmp_path: Path) -> None:
    image = ImageCode(DEFAULT_SERVICE)
    paths = [model(tmp_path, name, inference=PROGRAM, helper=f"NAME = {name!r}\n") for name in "ab"]
    first, second = (loader.load(load_message(path, image=image), {}) for path in paths)
    answers = [body_of(ask(each, b"[1]", content_type=content_types.JSON)) for each in (first, second, first)]
    assert answers == [b'["a", [1]]', b'["b", [1]]', b'["a", [1]]']
    first.close()
    second.close()


def test_a_program_is_imported_anew_when_the_model_is_loaded_again(tmp_path: Path) -> None:
    image = ImageCode(DEFAULT_SERVICE)
    for name in ("one", "two"):
        path = model(tmp_path / name, "same", inference=PROGRAM, helper=f"NAME = {name!r}\n")
        with loaded(load_message(path, image=image)) as each:
            assert body_of(ask(each, b"[1]", content_type=content_types.JSON)) == f'["{name}", [1]]'.encode()
