"""Models of every convention are loaded and asked in this process; their code stays their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import xgboost

from mmekit import formats
from mmekit.choice import ImageCode
from mmekit.errors import ModelLoadError
from mmekit.worker import failures, loader
from mmekit.worker.messages import Load
from mmekit_handlers.base import Response
from tests.support.models import MODELS, ask, body_of, load_message, loaded, request


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> object:
    """A model that was loaded and closed leaves the import system as it was."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # as in workers
    path = sys.path[:]
    yield
    assert sys.path == path
    left = [
        name for name, module in sys.modules.items() if str(MODELS) in str(getattr(module, "__file__", ""))
    ]
    assert left == []


def why_not(message: Load) -> str:
    """Return what a failed load answers."""
    with pytest.raises(BaseException) as raised:
        loader.load(message, {})
    return failures.failure_of(raised.value, message.code_dirs, "load").message


def image_with(tmp_path: Path, **files: str) -> Path:
    tmp_path.mkdir(exist_ok=True)
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


# --- built-in handlers


def save_booster(path: Path) -> None:
    path.mkdir()
    features = np.arange(20, dtype=float).reshape(10, 2)
    data = xgboost.DMatrix(features, label=features[:, 0])
    xgboost.train({"nthread": 1}, data, num_boost_round=1).save_model(path / "model.ubj")


def test_a_model_without_code_is_served_by_the_built_in_handler(tmp_path: Path) -> None:
    save_booster(tmp_path / "model")
    with loaded(load_message(tmp_path / "model")) as model:
        assert model.batches
        assert len(model([request(b"1,2", content_type="text/csv")] * 3)) == 3


def test_a_framework_that_the_image_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.FRAMEWORKS, formats.XGBOOST, ("XGBoost", "no_such_framework"))
    (tmp_path / "model.ubj").write_text("{")
    assert why_not(load_message(tmp_path)) == (
        "Failed to start workers: The model's files are XGBoost's, and this image has no no_such_framework: "
        "build the image with xgboost in its FRAMEWORKS (docker build --build-arg FRAMEWORKS=…,xgboost)."
    )


# --- the four functions


def test_a_program_in_code_imports_its_packages_and_reads_the_model_folder() -> None:
    with loaded(load_message(MODELS / "code_dir")) as model:
        assert json.loads(body_of(ask(model, b"[[1, 2]]", content_type="application/json"))) == [[10.0, 20.0]]
        assert not model.batches


def test_functions_that_take_the_context_read_and_set_headers() -> None:
    with loaded(load_message(MODELS / "context_args")) as model:
        answer = ask(model, b"", X_Amzn_SageMaker_Custom_Attributes="trace=1")
    assert body_of(answer) == b"trace=1 in context_args"
    assert (answer.status, answer.reason, answer.headers) == (202, "Accepted", [("X-Note", "seen")])


def test_what_a_program_leaves_out_comes_from_the_images_handler_class(tmp_path: Path) -> None:
    image = image_with(
        tmp_path / "image",
        upper_handler="""
from mmekit_handlers.base import Handler


class Upper(Handler):
    def model_fn(self, model_dir):
        return str.upper

    def input_fn(self, body, content_type, context):
        return bytes(body).decode()

    def predict_fn(self, data, model, context):
        return model(data)
""",
    )
    own = tmp_path / "model" / "code"
    own.mkdir(parents=True)
    (own / "inference.py").write_text(
        "def output_fn(prediction, accept):\n    return prediction + '!', 'text/x'\n"
    )
    message = load_message(tmp_path / "model", image=ImageCode("upper_handler:Upper", code_dir=image))
    with loaded(message) as model:
        assert body_of(ask(model, b"abc")) == b"ABC!"


def test_a_handler_class_of_the_image_is_imported_once_for_all_models(tmp_path: Path) -> None:
    image = image_with(
        tmp_path / "image",
        counted_handler="""
from mmekit_handlers.base import Handler


class Counted(Handler):
    def model_fn(self, model_dir):
        return model_dir

    def input_fn(self, body, content_type, context):
        return None

    def predict_fn(self, data, model, context):
        return [model, id(type(self))]
""",
    )
    code = ImageCode("counted_handler:Counted", code_dir=image)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("x")
    with (
        loaded(load_message(tmp_path / "a", image=code)) as first,
        loaded(load_message(tmp_path / "b", image=code)) as second,
    ):
        one, other = (json.loads(body_of(ask(model))) for model in (first, second))
    assert (one[0], other[0]) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert one[1] == other[1]


# --- MMS handlers


def test_a_function_is_called_once_without_data_and_then_for_each_request() -> None:
    with loaded(load_message(MODELS / "handle_style")) as model:
        assert body_of(ask(model, b"12345")) == f"{MODELS / 'handle_style'} 5".encode()


def test_a_class_is_initialized_and_sets_headers_by_its_context() -> None:
    with loaded(load_message(MODELS / "class_style")) as model:
        answer = ask(model, b"abc")
    assert json.loads(body_of(answer)) == {"name": str(MODELS / "class_style"), "body": "abc"}
    assert body_of(answer).startswith(b'{\n  "name"')  # as MMS writes it
    assert (answer.content_type, answer.headers) == ("application/x-echo", [("X-Length", "3")])


def test_a_batch_goes_to_an_mms_handler_in_one_call_unless_alone_is_asked_for() -> None:
    with loaded(load_message(MODELS / "class_style", batch_size=4)) as model:
        assert model.batches
        answers = model([request(b"a"), request(b"bcd")])
        headers = [answer.headers for answer in answers if isinstance(answer, Response)]
        assert headers == [[("X-Length", "1")], [("X-Length", "3")]]
        assert len(model([request(b"a"), request(b"bcd")], True)) == 2


def test_a_batch_fails_together() -> None:
    with loaded(load_message(MODELS / "handle_raises", batch_size=2)) as model:
        results = model([request(b"x"), request(b"y")])
        errors = [each for each in results if isinstance(each, BaseException)]
        told = [failures.failure_of(each, model.code_dirs, "invoke") for each in errors]
    assert [(each.status, each.message) for each in told] == [
        (503, "Prediction failed: ValueError: x (service.py:18)")
    ] * 2


def test_the_same_image_wide_function_serves_each_model_with_its_own_globals(tmp_path: Path) -> None:
    """People keep the model in a module global, as MMS's template does: one process a model."""
    image = image_with(
        tmp_path / "image", shared_service=(MODELS / "handle_style" / "service.py").read_text()
    )
    code = ImageCode("shared_service:handle", code_dir=image)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("x")
    with (
        loaded(load_message(tmp_path / "a", image=code)) as first,
        loaded(load_message(tmp_path / "b", image=code)) as second,
    ):
        assert body_of(ask(first, b"")) == f"{tmp_path / 'a'} 0".encode()
        assert body_of(ask(second, b"")) == f"{tmp_path / 'b'} 0".encode()


@pytest.mark.parametrize("form", ["{}/svc.py:handle", "{}/svc:handle", "{}/svc.py"])
def test_a_handler_may_be_a_path_in_the_image(tmp_path: Path, form: str) -> None:
    image = image_with(
        tmp_path / "image",
        svc="import near\n\ndef handle(data, context):\n    return near.answer\n",
        near="answer = ['near']\n",
    )
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    (model_dir / "weights").write_text("x")
    with loaded(load_message(model_dir, handler=form.format(image))) as model:
        assert body_of(ask(model)) == b"near"


def test_a_handler_may_be_in_a_package_of_the_model(tmp_path: Path) -> None:
    package = tmp_path / "code" / "pkg" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "service.py").write_text("def run(data, context):\n    return ['packed']\n")
    with loaded(load_message(tmp_path, handler="pkg.inner.service:run")) as model:
        assert body_of(ask(model)) == b"packed"


def test_a_program_with_only_handle_is_an_mms_handler(tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("def handle(data, context):\n    return ['handled']\n")
    with loaded(load_message(tmp_path)) as model:
        assert body_of(ask(model)) == b"handled"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"bytes", b"\x00\xff"),
        (b"text", "grüße".encode()),
        (b"json", b"[\n"),
        (b"generator", b"one two"),
        (b"bare generator", b"three four"),
    ],
)
def test_what_an_mms_handler_may_return(body: bytes, expected: bytes) -> None:
    with loaded(load_message(MODELS / "handle_returns")) as model:
        answer = ask(model, body)
        if body == b"json":
            assert json.loads(body_of(answer)) == {"b": [1, 2.5, None, True]}
        else:
            assert body_of(answer) == expected
        assert answer.content_type is None


def test_no_content_has_no_body_and_no_type() -> None:
    with loaded(load_message(MODELS / "handle_returns")) as model:
        answer = ask(model, b"no content")
    assert (answer.status, answer.body, answer.content_type) == (204, b"", None)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (
            b"dict",
            503,
            "Invalid model predict output: the handler returned a dict; expected a list with one element",
        ),
        (
            b"too many",
            503,
            "number of batch response mismatched: the handler returned 2 elements for 1 requests.",
        ),
        (
            b"object",
            503,
            "Unsupported model output data type. Object of type object is not JSON serializable",
        ),
        (
            b"inject",
            500,
            "The handler set the header X-Note to 'a\\r\\nX-Evil: b': line breaks, control characters",
        ),
        (b"number header", 500, "The handler set the header X-Note to int 7; expected a str."),
        (b"status 99", 500, "The handler set the status 99; expected a number from 200 to 599."),
    ],
)
def test_what_an_mms_handler_may_not_return(body: bytes, status: int, text: str) -> None:
    with loaded(load_message(MODELS / "handle_returns")) as model:
        (result,) = model([request(body)])
        assert isinstance(result, BaseException)
        failure = failures.failure_of(result, model.code_dirs, "invoke")
    assert (failure.status, failure.message[: len(text)]) == (status, text)


# --- streams


def test_a_generators_parts_are_made_as_they_are_read_with_its_own_modules() -> None:
    with (
        loaded(load_message(MODELS / "streams")) as model,
        loaded(load_message(MODELS / "own_utils_a")) as other,
    ):
        parts = ask(model, b"3").body
        assert not isinstance(parts, bytes)
        assert next(parts) == b"part 0\n"
        assert ask(other).body == b"a a late a"
        assert "numbering" not in sys.modules
        assert [*parts] == [b"part 1\n", b"part 2\n"]


def test_a_generator_that_fails_later_raises_where_it_is_read() -> None:
    with loaded(load_message(MODELS / "streams_then_raises")) as model:
        parts = ask(model).body
        assert not isinstance(parts, bytes)
        assert next(parts) == b"part 0\n"
        with pytest.raises(RuntimeError, match="the second part failed"):
            next(parts)


# --- each model's code stays its own


def test_two_models_with_modules_of_the_same_names_use_their_own_also_later() -> None:
    with (
        loaded(load_message(MODELS / "own_utils_a")) as a,
        loaded(load_message(MODELS / "own_utils_b")) as b,
    ):
        assert [ask(model).body for model in (a, b, a, b)] == [
            b"a a late a",
            b"b b late b",
            b"a a late a",
            b"b b late b",
        ]


def test_a_module_of_the_image_with_a_models_name_is_there_again_afterwards() -> None:
    utils = sys.modules["utils"] = ModuleType("utils")
    try:
        with loaded(load_message(MODELS / "own_utils_a")) as model:
            assert ask(model).body == b"a a late a"
            assert sys.modules["utils"] is utils
    finally:
        del sys.modules["utils"]


def test_what_a_model_puts_on_the_import_path_is_its_own(tmp_path: Path) -> None:
    models = []
    for name in "ab":
        code = tmp_path / name / "code"
        (code / "src").mkdir(parents=True)
        (code / "src" / "deep.py").write_text(f"NAME = {name!r}\n")
        (code / "inference.py").write_text(
            "import os, sys\n"
            "sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'src'))\n"
            "def model_fn(model_dir):\n    return None\n"
            "def transform_fn(model, input_data, content_type, accept):\n"
            "    import deep\n    return deep.NAME\n"
        )
        models.append(loader.load(load_message(tmp_path / name), {}))
    assert [body_of(ask(model)) for model in (*models, *models)] == [b"a", b"b", b"a", b"b"]
    assert "deep" not in sys.modules
    for model in models:
        model.close()


def test_a_model_that_was_changed_on_disk_and_loaded_again_runs_the_new_code(tmp_path: Path) -> None:
    program = tmp_path / "inference.py"
    answers = []
    for text in ("first", "second"):
        program.write_text(f"def handle(data, context):\n    return ['{text}']\n")
        with loaded(load_message(tmp_path)) as model:
            answers.append(body_of(ask(model)))
    assert answers == [b"first", b"second"]


# --- loads that fail


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exit_on_import", "Failed to start workers: the code called exit(3) while loading (inference.py:3)"),
        (
            "syntax_error",
            "Failed to start workers: SyntaxError: '{' was never closed (inference.py:2): return {\"a\": 1",
        ),
        ("raises_on_load", "Failed to start workers: ValueError: no weights in this folder (inference.py:2)"),
        (
            "out_of_memory_on_load",
            "Failed to start workers: out of memory: MemoryError: cannot allocate 40 GiB for the weights "
            "(inference.py:2)",
        ),
        (
            "import_missing_module",
            "Failed to start workers: ModuleNotFoundError: No module named 'a_module_that_nobody_has' "
            "(inference.py:1); a_module_that_nobody_has is neither in the model's code nor in this image",
        ),
        (
            "defines_nothing",
            "Failed to start workers: inference.py defines none of pre_model_fn, model_fn, model_warmup_fn, "
            "input_fn, predict_fn, output_fn, transform_fn, no handle(data, context), and no class with "
            "handle.",
        ),
        (
            "class_fails_to_initialize",
            "Failed to start workers: OSError: the license server does not answer (service.py:3)",
        ),
        (
            "two_classes",
            "Failed to start workers: handler 'service:predict': service.py has no 'predict', and 2 classes "
            "with handle (First, Second); name one of them.",
        ),
    ],
)
def test_a_load_that_fails_says_what_and_where(name: str, text: str) -> None:
    assert why_not(load_message(MODELS / name)) == text


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        ("gone:handle", "handler 'gone:handle': there is no module 'gone', neither in the model's folder"),
        (
            "gone.part:handle",
            "handler 'gone.part:handle': there is no module 'gone', neither in the model's folder",
        ),
        (
            "sub/gone.py:handle",
            "handler 'sub/gone.py:handle': there is no file sub/gone.py; searched in /",
        ),
        (
            "/opt/gone.py:handle",
            "handler '/opt/gone.py:handle': there is no file /opt/gone.py in this image.",
        ),
        ("svc:number", "handler 'svc:number': number in svc.py is a int; expected a function or a class."),
        (
            "svc:Plain",
            "handler 'svc:Plain': the class Plain in svc.py has no handle(data, context) and is no",
        ),
        ("svc:nothing", "handler 'svc:nothing': svc.py has no 'nothing', and no class with handle; name one"),
        ("code.py:handle", "is no"),
    ],
)
def test_a_handler_string_that_names_nothing_usable_says_so(tmp_path: Path, handler: str, text: str) -> None:
    image_with(tmp_path, svc="number = 3\nclass Plain:\n    pass\n")
    if handler == "code.py:handle":
        (tmp_path / "code.py").write_text("def handle(data, context):\n    return data\n")
        text = f"{tmp_path}/code.py cannot be imported as 'code': Python has a module of that name"
        sys.modules.setdefault("code", __import__("code"))
    message = load_message(tmp_path, handler=handler)
    assert why_not(message).startswith(f"Failed to start workers: {text}")


def test_a_failed_load_can_be_repeated_at_once(tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("import nowhere_at_all\n")
    assert "nowhere_at_all is neither" in why_not(load_message(tmp_path))
    (tmp_path / "inference.py").write_text("def handle(data, context):\n    return ['now']\n")
    with loaded(load_message(tmp_path)) as model:
        assert body_of(ask(model)) == b"now"


def test_a_load_that_names_nothing_is_refused(tmp_path: Path) -> None:
    message = Load("m", str(tmp_path), None, None, None, [], 1, None, None)
    with pytest.raises(ModelLoadError, match="names no handler, program or runtime"):
        loader.load(message, {})


def test_a_handler_class_learns_the_workers_gpu_from_its_environment(tmp_path: Path) -> None:
    image = image_with(
        tmp_path / "image",
        device_handler="""
from mmekit_handlers.base import Handler


class Device(Handler):
    def model_fn(self, model_dir):
        return self.environ["MMEKIT_GPU_ID"]

    def input_fn(self, body, content_type, context):
        return context.system_properties["gpu_id"]

    def predict_fn(self, data, model, context):
        return [model, data]
""",
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("x")
    message = load_message(tmp_path / "model", image=ImageCode("device_handler:Device", code_dir=image))
    with loaded(msgspec.structs.replace(message, gpu_id=1)) as model:
        assert json.loads(body_of(ask(model))) == ["1", 1]
