"""What a model's folder is taken for, and which code is chosen to run it."""

from __future__ import annotations

import json
import lzma
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.pipeline
import sklearn.preprocessing
import torch
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from mmekit import artifact, choice, formats, requirements
from mmekit.archive import manifest
from mmekit.errors import InvalidModel, ModelLoadError, ModelNotFound
from tests.support.models import MODELS

FEATURES = np.arange(40, dtype=np.float64).reshape(20, 2)
LABELS = (FEATURES[:, 0] > 20).astype(int)


def folder(tmp_path: Path, *names: str, text: str = "x") -> Path:
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def booster() -> xgboost.Booster:
    data = xgboost.DMatrix(FEATURES, label=LABELS)
    return xgboost.train({"nthread": 1, "max_depth": 1}, data, num_boost_round=1)


def pipeline() -> sklearn.pipeline.Pipeline:
    steps = sklearn.pipeline.make_pipeline(
        sklearn.preprocessing.StandardScaler(), sklearn.linear_model.LogisticRegression()
    )
    return steps.fit(FEATURES, LABELS)


# --- which framework a file belongs to


@pytest.mark.parametrize("name", ["model.ubj", "model.json", "model.bst", "xgboost-model", "xgboost-model-0"])
def test_files_that_xgboost_writes_are_xgboosts(tmp_path: Path, name: str) -> None:
    file = tmp_path / ("saved" + (Path(name).suffix if name.endswith((".ubj", ".json")) else ".ubj"))
    booster().save_model(file)
    file.rename(tmp_path / name)
    assert artifact.inspect(tmp_path).runtime == formats.XGBOOST


@pytest.mark.parametrize("name", ["xgboost-model", "model.pkl", "model.model", "model"])
def test_a_pickled_booster_is_xgboosts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(booster()))
    assert artifact.inspect(tmp_path).runtime == formats.XGBOOST


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("make", "expected"),
    [(pipeline, formats.SKLEARN), (booster, formats.XGBOOST)],
    ids=["sklearn", "xgboost"],
)
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int, make: object, expected: str) -> None:
    assert callable(make)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(make(), protocol))
    assert artifact.inspect(tmp_path).runtime == expected


def test_a_pickled_xgboost_wrapper_is_xgboosts_and_one_in_a_pipeline_is_scikit_learns(tmp_path: Path) -> None:
    wrapper = xgboost.XGBClassifier(n_estimators=1, n_jobs=1).fit(FEATURES, LABELS)
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(wrapper))
    assert artifact.inspect(tmp_path).runtime == formats.XGBOOST
    steps = sklearn.pipeline.make_pipeline(sklearn.preprocessing.StandardScaler(), wrapper)
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(steps))
    assert artifact.inspect(tmp_path).runtime == formats.SKLEARN


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_are_read_through_their_compression(tmp_path: Path, compress: object) -> None:
    joblib.dump(booster(), tmp_path / "model.joblib", compress=compress)
    assert artifact.inspect(tmp_path).runtime == formats.XGBOOST


def test_a_pickle_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Trap()))
    artifact.inspect(tmp_path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("name", ["model.pt", "weights.pth", "model.bin", "model.pkl"])
def test_what_torch_saves_is_pytorchs(tmp_path: Path, name: str) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / name)
    assert artifact.inspect(tmp_path).runtime == formats.PYTORCH


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.pt2", b"", formats.PYTORCH),
        ("model.safetensors", b"broken", formats.PYTORCH),
        ("MODEL.UBJ", b"broken", formats.XGBOOST),
        ("model.skops", b"broken", formats.SKLEARN),
        ("model.joblib", b"broken", formats.SKLEARN),
        ("model.pkl", lzma.compress(b"not a pickle")[:20], formats.SKLEARN),
        ("model.json", b'\n {"learner": {}}', formats.XGBOOST),
        ("config.json", b'{"layers": 3}', None),
        ("old", b"binf\0\0", formats.XGBOOST),
        ("model.onnx", b"\x08\x07", None),
        ("README", b"text", None),
    ],
)
def test_names_and_first_bytes_decide(
    tmp_path: Path, name: str, content: bytes, expected: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    assert artifact.inspect(tmp_path).runtime == expected


def test_what_archivers_leave_behind_is_ignored(tmp_path: Path) -> None:
    folder(tmp_path, "model.ubj", "._model.pkl", ".DS_Store", "__MACOSX/model.pkl", "lost+found/x.pt")
    assert artifact.inspect(tmp_path).entries == ("model.ubj",)
    assert artifact.inspect(tmp_path).runtime == formats.XGBOOST


def test_links_count_as_links_and_lead_to_their_files(tmp_path: Path) -> None:
    store = folder(tmp_path / "store", "big.ubj", text="x" * 100_000)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.ubj").symlink_to(store / "big.ubj")
    found = artifact.inspect(model)
    assert found.runtime == formats.XGBOOST
    assert found.size_bytes < 1000


def test_the_size_is_that_of_all_files(tmp_path: Path) -> None:
    folder(tmp_path, "model.ubj", "code/inference.py", "data/a/b.txt", text="x" * 1000)
    assert artifact.inspect(tmp_path).size_bytes == 3000


def test_the_fingerprint_changes_with_any_file_and_is_empty_when_the_folder_is_gone(tmp_path: Path) -> None:
    folder(tmp_path, "model.ubj", "code/inference.py")
    before = artifact.fingerprint(tmp_path)
    assert artifact.fingerprint(tmp_path) == before
    (tmp_path / "code" / "inference.py").write_text("longer")
    assert artifact.fingerprint(tmp_path) != before
    assert artifact.fingerprint(tmp_path / "gone") == ""


# --- what is no model


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFound, match=f"^Model not found in model store: there is no folder {tmp_path}/a/b"
    ):
        artifact.inspect(tmp_path / "a" / "b")


def test_a_path_with_a_zero_byte_is_not_found() -> None:
    with pytest.raises(ModelNotFound, match="is not a path"):
        artifact.inspect("/opt/\0")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    folder(tmp_path, "model.tar.gz")
    with pytest.raises(InvalidModel, match=r"model\.tar\.gz is a file; a model is loaded from the folder"):
        artifact.inspect(tmp_path / "model.tar.gz")


@pytest.mark.parametrize("names", [(), (".DS_Store", "__MACOSX/._a")])
def test_an_empty_folder_is_no_model(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder(tmp_path, *names)
    with pytest.raises(InvalidModel, match=f"The model folder {tmp_path} is empty"):
        artifact.inspect(tmp_path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user reaches; pytest's own are below folders that it alone may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def test_a_folder_that_cannot_be_read_says_who_cannot_read_what(open_folder: Path) -> None:
    folder(open_folder, "model.pkl")
    (open_folder / "model.pkl").chmod(0)
    program = (
        "import os, sys\n"
        "from mmekit import artifact, errors\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: artifact.inspect(sys.argv[1])\n"
        "except errors.InvalidModel as error: sys.stdout.write(error.message)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, open_folder], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"{open_folder / 'model.pkl'}: Permission denied (the server runs as user " in said.stdout


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Failed to parse MAR-INF/MANIFEST.json: Expecting property name"),
        ("[1]", "Failed to parse MAR-INF/MANIFEST.json: expected an object, found a list"),
        ('{"model": "x"}', 'expected an object in "model", found a string'),
        ('{"model": {"handler": 3}}', 'in "model.handler", found a number'),
        ("[" * 100_000, "Failed to parse MAR-INF/MANIFEST.json: "),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, text: str, why: str) -> None:
    folder(tmp_path, manifest.MANIFEST, text=text)
    with pytest.raises(InvalidModel) as raised:
        artifact.inspect(tmp_path)
    assert why in raised.value.message


# --- the choice


def test_a_handler_of_the_load_request_comes_before_the_manifests(tmp_path: Path) -> None:
    folder(tmp_path, "service.py", manifest.MANIFEST, text='{"model": {"handler": "service:handle"}}')
    found = artifact.inspect(tmp_path)
    assert choice.choose(found).handler == "service:handle"
    assert choice.choose(found, "other:run").handler == "other:run"


@pytest.mark.parametrize(
    "handler",
    [
        "service:handle",
        "service.py:handle",
        "service",
        "sub/inner.py:run",
        "sub/inner:run",
        "package.part:run",
        # handlers of the image, which may import what the model brings
        "sagemaker_inference.default_handler_service",
        "/opt/image/service.py:handle",
    ],
)
def test_a_named_handler_runs_with_the_models_own_code(tmp_path: Path, handler: str) -> None:
    folder(
        tmp_path, "service.py", "sub/inner.py", "code/package/__init__.py", "code/package/part.py", text=""
    )
    chosen = choice.choose(artifact.inspect(tmp_path), handler)
    assert chosen.own_code
    assert chosen.code_dirs == (str(tmp_path / "code"), str(tmp_path))
    assert "service" in chosen.shadows


def test_a_built_in_handler_takes_no_code_from_the_model(tmp_path: Path) -> None:
    folder(tmp_path, "service.py", "model.joblib")
    chosen = choice.choose(artifact.inspect(tmp_path), formats.SKLEARN)
    assert (chosen.own_code, chosen.code_dirs, chosen.shadows) == (False, (), frozenset())


def test_a_handler_of_the_image_serves_models_without_code_in_shared_workers(tmp_path: Path) -> None:
    folder(tmp_path, "model.ubj", "sub/inner.txt")
    for handler in ("service:handle", "/opt/image/service.py:handle", "../service.py:run"):
        assert not choice.choose(artifact.inspect(tmp_path), handler).own_code


def test_in_mms_mode_the_images_handler_is_as_if_each_model_named_it(tmp_path: Path) -> None:
    image = choice.ImageCode("service:handle", handler_runs_programs=True)
    program = artifact.inspect(folder(tmp_path / "a", "inference.py"))
    assert choice.choose(program, image=image) == choice.choose(program, "service:handle")
    own = artifact.inspect(folder(tmp_path / "b", "service.py"))
    assert choice.choose(own, image=image) == choice.choose(own, "service:handle")
    assert choice.choose(own, image=image).own_code


def test_a_program_is_looked_for_in_code_and_then_at_the_top(tmp_path: Path) -> None:
    folder(tmp_path, "inference.py", "model.ubj")
    assert artifact.inspect(tmp_path).program == str(tmp_path / "inference.py")
    folder(tmp_path, "code/inference.py", "code/lib/dependency/__init__.py", "code/tools.py")
    found = artifact.inspect(tmp_path)
    chosen = choice.choose(found)
    assert chosen.program == str(tmp_path / "code" / "inference.py")
    assert (chosen.handler, chosen.runtime, chosen.own_code) == (None, formats.XGBOOST, True)
    assert chosen.code_dirs == (str(tmp_path / "code"), str(tmp_path), str(tmp_path / "code" / "lib"))
    assert chosen.shadows == {"inference", "tools", "dependency"}


@pytest.mark.parametrize("program", ["score", "score.py"])
def test_the_programs_name_is_a_setting_with_or_without_its_suffix(tmp_path: Path, program: str) -> None:
    folder(tmp_path, "code/score.py", "code/inference.py")
    assert artifact.inspect(tmp_path, program).program == str(tmp_path / "code" / "score.py")


def test_python_files_alone_are_no_own_code(tmp_path: Path) -> None:
    folder(tmp_path, "model.ubj", "train.py")
    assert not artifact.inspect(tmp_path).own_code
    assert choice.choose(artifact.inspect(tmp_path)).program is None


def test_image_wide_code_comes_after_the_models_own_and_before_the_built_in(tmp_path: Path) -> None:
    code = folder(tmp_path / "image", "inference.py")
    model = artifact.inspect(folder(tmp_path / "model", "model.ubj"))
    by_program = choice.choose(model, image=choice.ImageCode(code_dir=code))
    assert by_program == choice.Choice(None, str(code / "inference.py"), formats.XGBOOST, (str(code),), False)
    by_handler = choice.choose(model, image=choice.ImageCode("service:handle", code_dir=code))
    assert by_handler == choice.Choice("service:handle", None, None, (str(code),), False)
    own = artifact.inspect(folder(tmp_path / "model", "code/inference.py"))
    assert choice.choose(own, image=choice.ImageCode("service:handle", code_dir=code)).own_code
    assert choice.choose(model).runtime == formats.XGBOOST


def test_a_program_that_is_set_and_nowhere_is_an_error_not_a_silent_default(tmp_path: Path) -> None:
    model = artifact.inspect(folder(tmp_path, "model.ubj"), "score.py")
    with pytest.raises(InvalidModel) as raised:
        choice.choose(model, image=choice.ImageCode(None, "score.py", Path("/opt/ml/code")))
    assert raised.value.message == (
        f"SAGEMAKER_PROGRAM=score.py, but there is no score.py in {tmp_path}/code, in {tmp_path} or in "
        "/opt/ml/code (SAGEMAKER_SUBMIT_DIRECTORY, a folder of this image). The model has: model.ubj."
    )


def test_files_of_several_frameworks_are_named(tmp_path: Path) -> None:
    model = artifact.inspect(folder(tmp_path, "model.ubj", "scaler.joblib"))
    with pytest.raises(
        InvalidModel, match=r"model.ubj \(XGBoost\), scaler.joblib \(scikit-learn\). Keep one"
    ):
        choice.choose(model)


def test_several_files_of_one_framework_are_left_to_its_handler(tmp_path: Path) -> None:
    assert choice.choose(artifact.inspect(folder(tmp_path, "a.ubj", "b.ubj"))).runtime == formats.XGBOOST


def test_an_archive_packed_with_its_folder_says_how_to_pack_it(tmp_path: Path) -> None:
    model = artifact.inspect(folder(tmp_path, "iris/model.ubj", ".DS_Store"))
    with pytest.raises(
        InvalidModel, match=r"holds only the folder 'iris'.* tar -czf model\.tar\.gz -C iris \."
    ):
        choice.choose(model)
    assert choice.choose(model, image=choice.ImageCode("service:handle")).handler == "service:handle"


def test_unknown_files_are_listed_with_what_would_be_known(tmp_path: Path) -> None:
    model = artifact.inspect(folder(tmp_path, *[f"{n:02}.onnx" for n in range(14)]))
    with pytest.raises(InvalidModel) as raised:
        choice.choose(model)
    assert "00.onnx, 01.onnx" in raised.value.message
    assert "11.onnx and 2 more. Recognised are XGBoost (*.ubj" in raised.value.message
    assert "set SAGEMAKER_HANDLER" in raised.value.message


def test_inspecting_imports_nothing_heavy() -> None:
    program = (
        "import sys, mmekit.choice; sys.exit(any(m in sys.modules for m in ('numpy', 'msgspec', 'asyncio')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


# --- requirements


def check(tmp_path: Path, text: str, **more: str) -> str:
    folder(tmp_path, "model.ubj")
    folder(tmp_path, "code/requirements.txt", text=text)
    for name, content in more.items():
        folder(tmp_path, f"code/{name}.txt", text=content)
    try:
        requirements.check(artifact.inspect(tmp_path))
    except ModelLoadError as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    "text",
    [
        "numpy\n",
        "NumPy>=1.20,<99  # comment\n\n# another\n",
        'nobody-has-this==1; python_version < "3.0"\n',
        "xgboost>=2\n",
        "numpy \\\n  >=1 --hash=sha256:00\n",
        "numpy @ https://example.com/numpy-1.0-py3-none-any.whl\n",
        "-r more.txt\n",
        "numpy\n-c limits.txt\n",
    ],
)
def test_requirements_that_the_image_meets_are_no_matter(tmp_path: Path, text: str) -> None:
    assert check(tmp_path, text, more="numpy", limits="nobody-has-this<1\nnumpy>1") == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("numpy<1", f"numpy<1 is required, numpy {np.__version__} is installed"),
        ("nobody-has-this>=2", "nobody-has-this>=2 is not installed"),
        ("-r more.txt", "nobody-at-all is not installed"),
        ("numpy\n--constraint limits.txt", f"numpy<1 is required, numpy {np.__version__} is installed"),
        ("git+https://user@example.com/a/nobody.git", "nobody @ git+https"),
        ("./wheels/nobody_has-1.0-py3-none-any.whl", "nobody_has is not installed"),
        ("-e git+https://example.com/x.git#egg=nobody", "nobody @ git+https"),
    ],
)
def test_an_unmet_requirement_is_named_with_what_is_installed(tmp_path: Path, text: str, why: str) -> None:
    message = check(tmp_path, text, more="nobody-at-all", limits="numpy<1")
    assert message.startswith("This image does not meet code/requirements.txt: ")
    assert why in message
    assert "environments of a model's own are not supported yet" in message


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("numpy=>1", "requirements.txt:1: 'numpy=>1' is not a requirement"),
        ("-r gone.txt", "gone.txt, which is not there"),
    ],
)
def test_a_file_that_is_no_requirements_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InvalidModel) as raised:
        check(tmp_path, text)
    assert why in raised.value.message


def test_options_have_no_meaning_and_are_said_to_be_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert check(tmp_path, "--index-url https://example.com/simple\nnumpy\n") == ""
    assert "requirements.txt:1: '--index-url https://example.com/simple' is ignored" in caplog.text


def test_the_manifest_is_passed_on_as_it_is() -> None:
    path = MODELS / "handle_style"
    expected = json.loads((path / manifest.MANIFEST).read_text())
    assert artifact.inspect(path).manifest == expected


OPCODES = [b"\x80\x05", b"\x8c\x02os", b"\x94", b"\x93", b"h\x00", b"."]


@given(st.lists(st.binary(max_size=20) | st.sampled_from(OPCODES)))
def test_no_bytes_make_the_look_into_a_pickle_fail(parts: list[bytes]) -> None:
    assert all(isinstance(module, str) for module in formats.pickled_modules(b"".join(parts)))
