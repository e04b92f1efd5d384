from __future__ import annotations

import logging
import pickle
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mmekit.errors import InvalidModel, ModelLoadError
from mmekit_handlers import sklearn_files
from mmekit_handlers.sklearn import SklearnHandler

X = np.arange(12.0).reshape(4, 3)
MODEL = make_pipeline(StandardScaler(), LinearRegression()).fit(X, [1, 2, 3, 5])


def load(path: Path, trusted: tuple[str, ...] = ()) -> Any:
    return sklearn_files.load(path, trusted).model


# --- which file


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.joblib"], "model.joblib"),
        (["forest.pkl"], "forest.pkl"),
        (["forest.pkl", "model.pkl"], "model.pkl"),
        (["model.joblib.gz", "notes.txt", "scaler.pkl"], "model.joblib.gz"),
        (["MODEL.SKOPS", ".hidden.pkl"], "MODEL.SKOPS"),
        (["a.sav", "README"], "a.sav"),
    ],
)
def test_the_model_file_is_found(names: list[str], expected: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert expected == sklearn_files.find(str(tmp_path)).name


def test_a_pickle_of_any_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "finalized").write_bytes(pickle.dumps(MODEL))
    (tmp_path / "notes.txt").write_text("x")
    assert sklearn_files.find(str(tmp_path)).name == "finalized"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.pkl", "b.joblib"],
            r"holds several model files: a\.pkl, b\.joblib; name one of them model\.joblib",
        ),
        (["model.pkl", "model.skops", "x.pkl"], r"several model files: model\.pkl, model\.skops;"),
        (["readme.txt"], r"holds no scikit-learn model: expected model\.joblib, .* found readme\.txt"),
        ([], "holds no scikit-learn model: .* found no file"),
    ],
)
def test_an_unclear_folder_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidModel, match=message):
        sklearn_files.find(str(tmp_path))


# --- formats


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_load_whatever_their_compression(compress: Any, tmp_path: Path) -> None:
    joblib.dump(MODEL, tmp_path / "model.joblib", compress=compress)
    np.testing.assert_array_equal(MODEL.predict(X), load(tmp_path / "model.joblib").predict(X))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_load(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(MODEL, protocol))
    np.testing.assert_array_equal(MODEL.predict(X), load(tmp_path / "model.pkl").predict(X))
    assert sklearn.__version__ == sklearn_files.trained_version(tmp_path / "model.pkl")


def test_skops_files_load(tmp_path: Path) -> None:
    skops.io.dump(MODEL, tmp_path / "model.skops")
    np.testing.assert_array_equal(MODEL.predict(X), load(tmp_path / "model.skops").predict(X))
    assert sklearn.__version__ == sklearn_files.trained_version(tmp_path / "model.skops")


def double(x: Any) -> Any:
    return x * 2


def test_types_that_skops_does_not_trust_are_named_with_the_setting(tmp_path: Path) -> None:
    own = FunctionTransformer(double).fit(X)
    skops.io.dump(own, tmp_path / "model.skops")
    unknown = f"{__name__}.double"
    with pytest.raises(ModelLoadError) as caught:
        SklearnHandler({}).model_fn(str(tmp_path))
    assert caught.value.message == (
        f"model.skops holds types that skops does not trust: {unknown}; "
        f"if you do, set MMEKIT_SKOPS_TRUSTED={unknown}"
    )
    trusting = SklearnHandler({"MMEKIT_SKOPS_TRUSTED": f" {unknown} ,"})
    np.testing.assert_array_equal(X * 2, trusting.model_fn(str(tmp_path)).transform(X))


# --- broken files


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("model.pkl", b"", InvalidModel, r"model\.pkl is empty"),
        ("model.pkl", b"hello", ModelLoadError, r"model\.pkl is damaged or truncated, or is not a joblib"),
        ("model.joblib", b"\x00" * 50, ModelLoadError, r"model\.joblib is damaged or truncated"),
        ("model.joblib", pickle.dumps(MODEL)[:-40], ModelLoadError, r"damaged or truncated, .* Error"),
        ("model.joblib", zlib.compress(pickle.dumps(MODEL))[:-40], ModelLoadError, "damaged or truncated"),
        ("model.skops", b"PK\x03\x04junk", InvalidModel, r"model\.skops is not a skops file"),
        ("model.pkl", b"version https://git-lfs.github.com/spec/v1\n", InvalidModel, "is a Git LFS pointer"),
    ],
)
def test_broken_files_say_so(
    name: str, content: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message.replace(" Error", "")):
        load(tmp_path / name)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    module = types.ModuleType("their_package")
    exec("class Own:\n    def predict(self, x): return x\n", module.__dict__)
    sys.modules["their_package"] = module
    try:
        joblib.dump(module.Own(), tmp_path / "model.joblib")
    finally:
        del sys.modules["their_package"]
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path / "model.joblib")
    assert caught.value.message == (
        "model.joblib needs module 'their_package', which this image does not have: "
        "install it in the image or put it into the model's code/ folder"
    )


def test_a_class_of_the_training_script_is_explained(tmp_path: Path) -> None:
    # As `python train.py` pickles its own class.
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x8c\x08__main__\x8c\x07OwnNess\x93)\x81.")
    with pytest.raises(ModelLoadError, match=r"refers to a class or function of the script that saved it"):
        load(tmp_path / "model.pkl")


# --- versions


def old_pickle() -> bytes:
    """Return a pickle that says it was written by scikit-learn 1.2.2."""
    plain = pickle.dumps(MODEL, 2)
    here = sklearn.__version__.encode()
    assert len(here) == 5, "the test replaces a version of the same length"
    return plain.replace(here, b"1.2.2")


BOTH = (
    f"trained with scikit-learn 1.2.2, this image has {sklearn.__version__}: "
    f"train again with {sklearn.__version__} or build an image with scikit-learn==1.2.2"
)


def test_a_version_mismatch_is_logged_with_both_versions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.pkl").write_bytes(old_pickle())
    with caplog.at_level(logging.WARNING):
        loaded = sklearn_files.load(tmp_path / "model.pkl", ())
    assert loaded.trained == "1.2.2"
    assert [record.getMessage() for record in caplog.records] == [
        f"model.pkl may predict otherwise or fail; {BOTH}"
    ]


@pytest.mark.parametrize("compressed", [False, True])
def test_both_versions_are_named_when_a_pickle_cannot_be_read(compressed: bool, tmp_path: Path) -> None:
    # The module has moved between the versions, as sklearn's private modules do.
    broken = old_pickle().replace(b"sklearn.linear_model._base", b"sklearn.linear_model._xxxx")
    (tmp_path / "model.pkl").write_bytes(zlib.compress(broken) if compressed else broken)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path / "model.pkl")
    assert caught.value.message == (
        "model.pkl cannot be read: ModuleNotFoundError: No module named 'sklearn.linear_model._xxxx'; " + BOTH
    )
