"""``import mms`` in workers, with and without MMS installed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmekit.worker import context, failures, loader, metrics, mms_modules
from mmekit.worker.messages import Failure
from tests.support.models import ask, body_of, load_message, loaded, request


@pytest.fixture(autouse=True)
def _as_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    mms_modules.install()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mms"]:
        del sys.modules[name]


def model_with(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


# --- names


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("mms", ["__version__"]),
        ("mms.version", ["__version__"]),
        ("mms.context", ["Context", "RequestProcessor"]),
        ("mms.service", ["PredictionException"]),
        ("mms.metrics.dimension", ["Dimension"]),
        ("mms.metrics.metric", ["Metric"]),
        ("mms.metrics.metric_encoder", ["MetricEncoder"]),
        ("mms.metrics.metrics_store", ["MetricsStore"]),
        ("mms.metrics.unit", ["Units"]),
        ("mms.model_service.model_service", ["ModelService", "SingleNodeService"]),
        ("mms.utils.timeit_decorator", ["timeit"]),
    ],
)
def test_handlers_find_mmss_names(module: str, names: list[str]) -> None:
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in names)


def test_import_mms_alone_gives_its_parts_as_in_mmss_workers() -> None:
    mms = importlib.import_module("mms")
    assert mms.__version__ == "1.1.11"
    assert mms.service.PredictionException.__module__ == "mms.service"
    assert mms.context.Context is context.Context
    assert mms.metrics.dimension.Dimension is metrics.Dimension
    assert mms.model_service.model_service.SingleNodeService
    for package in (mms, mms.metrics, mms.model_service):
        with pytest.raises(AttributeError):
            package.nothing  # noqa: B018 - the access is what is tested


@pytest.mark.parametrize("module", ["system_metrics", "process_memory_metric", "metric_collector"])
def test_scripts_of_the_java_server_say_what_takes_their_place(module: str) -> None:
    with pytest.raises(ImportError, match="MMEKIT_METRIC_TIME_INTERVAL_SECONDS"):
        importlib.import_module(f"mms.metrics.{module}")


@pytest.mark.parametrize(
    "module", ["mms.model_service.mxnet_model_service", "mms.utils.mxnet", "mms.utils.mxnet.image"]
)
def test_what_is_built_on_mxnet_says_so(module: str) -> None:
    with pytest.raises(ImportError, match="needs mxnet and the package multi-model-server"):
        importlib.import_module(module)


def test_what_mms_has_not_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'mms\.nothing'"):
        importlib.import_module("mms.nothing")


def test_nothing_named_mms_is_found_outside_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    finders = [each for each in sys.meta_path if not isinstance(each, mms_modules.MmsFinder)]
    monkeypatch.setattr(sys, "meta_path", finders)
    assert importlib.util.find_spec("mms") is None


def test_installing_it_twice_changes_nothing() -> None:
    mms_modules.install()
    assert sum(isinstance(each, mms_modules.MmsFinder) for each in sys.meta_path) == 1
    assert isinstance(sys.meta_path[-1], mms_modules.MmsFinder)


def test_the_timing_decorator_returns_what_the_function_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    timeit = importlib.import_module("mms.utils.timeit_decorator").timeit
    assert timeit(len)("abc") == 3
    assert "len took" in caplog.text


# --- handlers

USES_MMS = """
import mms
from mms.context import Context, RequestProcessor
from mms.metrics.dimension import Dimension
from mms.service import PredictionException

loaded = None

def handle(data, context):
    global loaded
    if data is None:
        loaded = context
        return None
    context.metrics.add_counter("Rows", len(data), 0, [Dimension("Kind", "a")])
    if data[0]["body"]:
        raise PredictionException("told", int(data[0]["body"]))
    same = [context is loaded, context == loaded, isinstance(context, Context)]
    return [[*same, mms.__version__, [str(d) for d in context.metrics.store[0].dimensions]]]
"""

#: What the real package has, as far as handlers see it.
REAL_MMS = {
    "__init__": "__version__ = 'real'\n",
    "context": "class Context(object):\n"
    "    def __init__(self, *args):\n        raise TypeError('not called')\n"
    "    @property\n    def metrics(self):\n        return self._metrics\n"
    "class RequestProcessor(object):\n    pass\n",
    "service": "class PredictionException(Exception):\n"
    "    def __init__(self, message, error_code=500):\n"
    "        self.message = message\n        self.error_code = error_code\n"
    "    def __str__(self):\n        return '{} : {}'.format(self.message, self.error_code)\n",
    "metrics/__init__": "",
    "metrics/dimension": "class Dimension(object):\n"
    "    def __init__(self, name, value):\n        self.name = name\n        self.value = value\n"
    "    def __str__(self):\n        return '{}:{}'.format(self.name, self.value)\n",
}


@pytest.fixture(params=["ours", "installed"])
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version that ``import mms`` is to find."""
    if request.param == "ours":
        return "1.1.11"
    for name, text in REAL_MMS.items():
        file = tmp_path / "site" / "mms" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "real"


def test_a_handler_gets_a_context_of_the_class_it_imports(tmp_path: Path, version: str) -> None:
    model_with(tmp_path / "model", service=USES_MMS)
    with loaded(load_message(tmp_path / "model", handler="service:handle")) as model:
        answer = json.loads(body_of(ask(model)))
    assert answer == [
        True,
        True,
        True,
        version,
        ["Kind:a", "ModelName:" + str(tmp_path / "model"), "Level:Model"],
    ]


@pytest.mark.parametrize(("code", "status"), [(404, 404), (302, 302), (204, 204), (600, 500), (99, 500)])
def test_a_prediction_exception_is_answered_with_its_status_and_text(
    tmp_path: Path, version: str, code: int, status: int
) -> None:
    model_with(tmp_path / "model", service=USES_MMS)
    with loaded(load_message(tmp_path / "model", handler="service:handle")) as model:
        (error,) = model([request(str(code).encode())])
        assert isinstance(error, BaseException)
        failure = failures.failure_of(error, model.code_dirs, "invoke")
    assert failure == Failure(status, "InternalServerException", "told")


def test_a_prediction_exception_with_the_code_200_is_a_success_as_in_mms(
    tmp_path: Path, version: str
) -> None:
    model_with(tmp_path / "model", service=USES_MMS)
    with loaded(load_message(tmp_path / "model", handler="service:handle")) as model:
        answer = ask(model, b"200")
    assert (answer.status, answer.body, answer.content_type) == (200, b"error", None)


def test_all_models_share_one_mms_and_a_models_own_one_comes_first(tmp_path: Path) -> None:
    shows = "import mms\n\ndef handle(data, context):\n    return [getattr(mms, 'MINE', 'shared')]\n"
    model_with(tmp_path / "a", service=shows)
    model_with(tmp_path / "b", service=shows, mms="MINE = 'own'\n")
    with (
        loaded(load_message(tmp_path / "a", handler="service:handle")) as first,
        loaded(load_message(tmp_path / "b", handler="service:handle")) as second,
    ):
        shared = sys.modules["mms"]
        assert [body_of(ask(model)) for model in (first, second, first)] == [b"shared", b"own", b"shared"]
        assert sys.modules["mms"] is shared


# --- archives for MMS 0.4

LEGACY = """
from mms.model_service.model_service import SingleNodeService

class Doubles(SingleNodeService):
    def __init__(self, model_name, model_dir, manifest, gpu=None):
        super().__init__(model_name, model_dir, manifest, gpu)
        self.made = [model_name, model_dir, manifest["Model"]["Service"], gpu]

    def _preprocess(self, data):
        return data[0]

    def _inference(self, data):
        return data if data == "made" else [2 * each for each in data]

    def _postprocess(self, data):
        return {"made": self.made} if data == "made" else {"doubled": data}
"""


def legacy_model(folder: Path, input_type: str = "application/json") -> Path:
    model_with(folder, doubles=LEGACY)
    manifest = {
        "Model-Archive-Version": 0.4,
        "Model": {"Service": "doubles.py", "Signature": "signature.json", "Model-Name": "doubles"},
    }
    signature = {"inputs": [{"data_name": "numbers", "data_shape": [0]}], "input_type": input_type}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "signature.json").write_text(json.dumps(signature))
    return folder


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[1, 2]", {}),
        (b"[1, 2,]", {}),  # a Python literal
        (b"numbers=[1,2]", {"content_type": "application/x-www-form-urlencoded"}),
        (b"data=[1,2]", {"content_type": "application/x-www-form-urlencoded"}),
    ],
)
def test_a_legacy_service_gets_the_input_its_signature_names(
    tmp_path: Path, body: bytes, headers: dict[str, str]
) -> None:
    with loaded(load_message(legacy_model(tmp_path / "model"))) as model:
        assert json.loads(body_of(ask(model, body, **headers))) == {"doubled": [2, 4]}


def test_a_legacy_service_is_made_with_name_folder_manifest_and_gpu(tmp_path: Path) -> None:
    folder = str(legacy_model(tmp_path / "model"))
    with loaded(load_message(folder)) as model:
        assert json.loads(body_of(ask(model, b'"made"'))) == {"made": [folder, folder, "doubles.py", None]}


def test_a_legacy_service_without_its_signature_is_a_failed_load(tmp_path: Path) -> None:
    folder = legacy_model(tmp_path / "model")
    (folder / "signature.json").unlink()
    with pytest.raises(ValueError, match=r"Signature file is not found: signature\.json"):
        loader.load(load_message(folder), {})
