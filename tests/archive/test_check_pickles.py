"""Pickles are looked into, never loaded: what they import, who wrote them, what their models take."""

from __future__ import annotations

import collections
import functools
import gzip
import io
import os
import pickle
import pickletools
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mmekit_toolkit.archive import inspection, pickle_files
from mmekit_toolkit.archive.findings import Level
from mmekit_toolkit.archive.pickle_machine import Pickle, scan
from mmekit_toolkit.archive.pickle_source import Limits, Source
from mmekit_toolkit.archive.report import Model, Report
from tests.archive.models import (
    NAMES,
    booster,
    checked,
    faults,
    folder,
    joblib_bytes,
    pipeline,
    table,
    tar_gz,
    text_of,
    told,
    xgboost_bytes,
)


def scanned(content: bytes) -> Pickle:
    return scan(Source(io.BytesIO(content), Limits(30)))


def of_file(tmp_path: Path, name: str, content: bytes, **more: bytes) -> Report:
    return checked(tar_gz(tmp_path / "m.tar.gz", {name: content, **more}))


def only(report: Report) -> Model:
    (model,) = report.models
    return model


class Calls:
    """An object whose pickle calls something when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


# --- what is found


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_each_protocol_is_read_to_its_end(protocol: int) -> None:
    found = scanned(pickle.dumps(pipeline(), protocol))
    assert found.problem is None
    assert {each.module for each in found.globals} >= {"sklearn.pipeline", "sklearn.linear_model._logistic"}


@pytest.mark.parametrize(
    "compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 1), ("xz", 1)], ids=lambda value: str(value)
)
def test_joblibs_files_are_read_through_arrays_and_compression(tmp_path: Path, compress: Any) -> None:
    report = of_file(tmp_path, "model.joblib", joblib_bytes(pipeline(), compress))
    assert report.findings == []
    model = only(report)
    assert model.form.startswith("joblib, protocol")
    assert model.model == "sklearn.pipeline.Pipeline (StandardScaler → LogisticRegression)"
    assert model.columns == 4
    assert model.column_names == NAMES
    assert model.written_by.keys() == {"scikit-learn"}


@functools.cache
def _estimators() -> dict[str, Any]:
    x, y = table()
    numbers = x.to_numpy()
    forest = RandomForestClassifier(5).fit(numbers, y)
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2).fit(x, y)
    columns = ColumnTransformer([("a", OneHotEncoder(handle_unknown="ignore"), ["age"])])
    return {
        "forest": forest,
        "boosting": GradientBoostingClassifier(n_estimators=3).fit(numbers, y),
        "search": search,
        "columns": make_pipeline(columns, LogisticRegression()).fit(x, y),
        "text": make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
            ["aa bb", "bb cc"] * 5, [0, 1] * 5
        ),
        "function": make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(numbers, y),
        "classifier": xgb.XGBClassifier(n_estimators=2, n_jobs=1).fit(x, y),
        "booster": booster(),
        "objects": np.array([pipeline(), None], dtype=object),
        "structured": np.zeros(7, dtype=[("a", "f8"), ("b", "U3"), ("c", "M8[s]"), ("d", "?")]),
        "empty": np.zeros((0, 3)),
        "fortran": np.asfortranarray(np.ones((300, 3))),
    }


_MODELS = "forest boosting search columns text function classifier booster objects structured empty fortran"


@pytest.mark.parametrize("name", _MODELS.split())
@pytest.mark.parametrize("dump", [pickle.dumps, joblib_bytes], ids=["pickle", "joblib"])
def test_no_honest_model_is_damaged_dangerous_or_missing_anything(
    tmp_path: Path, name: str, dump: Any
) -> None:
    report = of_file(tmp_path, "model.pkl", dump(_estimators()[name]))
    is_array = isinstance(_estimators()[name], np.ndarray)
    assert faults(report) == ({"not-a-model"} if is_array else set())
    assert told(report, Level.WARNING) == set()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=300),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner) | st.frozensets(st.text())
        ),
        max_leaves=20,
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
@settings(max_examples=70)
def test_whatever_pickle_writes_is_read_to_its_end(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol)
    found = scanned(content)
    assert found.problem is None
    assert not found.hides_imports
    told_by_pickletools = {
        str(argument)
        for opcode, argument, _ in pickletools.genops(content)
        if opcode.name in ("GLOBAL", "INST")
    }
    assert {f"{each.module} {each.name}" for each in found.globals} >= told_by_pickletools


def test_arrays_of_protocol_0_are_lines_of_any_length(tmp_path: Path) -> None:
    model = make_pipeline(HashingVectorizer(n_features=2**16), LogisticRegression())
    content = pickle.dumps(model.fit(["aa bb", "bb cc"] * 5, [0, 1] * 5), 0)
    assert of_file(tmp_path, "m.pkl", content).findings == []


def test_columns_of_a_search_are_those_of_its_best(tmp_path: Path) -> None:
    assert only(of_file(tmp_path, "m.pkl", pickle.dumps(_estimators()["search"]))).columns == 4


# --- danger


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "evil",
    [
        Calls(os.system, "true"),
        Calls(eval, "1"),
        Calls(exec, "1"),
        Calls(subprocess.check_output, ["true"]),
        Calls(open, "/etc/passwd"),
        Calls(__import__, "os"),
    ],
    ids=["os.system", "eval", "exec", "subprocess", "open", "import"],
)
def test_a_pickle_that_would_run_something_is_a_fault_and_runs_nothing(
    tmp_path: Path, protocol: int, evil: Calls
) -> None:
    report = of_file(tmp_path, "model.pkl", pickle.dumps([pipeline(), evil], protocol))
    assert "dangerous" in faults(report)
    assert "Do not load it" in text_of(report, "dangerous")


def test_a_pickle_that_leaves_a_trace_when_it_is_loaded_leaves_none(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps(Calls(os.system, f"touch {trace}"))
    names = ("model.pkl", "model.joblib", "a.npy", "model.pt", "notes.txt", "code/data.bin")
    report = checked(tar_gz(tmp_path / "m.tar.gz", dict.fromkeys(names, content)))
    assert "dangerous" in faults(report)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.",
        # the names from the memo, in another order, with something in between
        b"\x80\x04\x8c\x06system\x94\x8c\x05posix\x94\x8c\x04noneh\x01h\x00\x93\x8c\x01x\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06systemN0\x93\x8c\x01x\x85R.",
        b"\x80\x04\x8c\x05posix2\x8c\x06system\x93\x8c\x01x\x85R.",
        b"(S'x'\nios\nsystem\n.",
        b"(cos\nsystem\nS'x'\no.",
        b"cos\nsystem\n(S'x'\ntR.",
        b"csklearn.utils\nos.system\n(S'x'\ntR.",
        b"\x80\x04cnumpy\n__builtins__\n.",
        b"\x80\x02cnumpy.testing._private.utils\nrunstring\n.",
    ],
)
def test_ways_to_hide_an_import_are_seen_through(tmp_path: Path, content: bytes) -> None:
    assert "dangerous" in faults(of_file(tmp_path, "model.pkl", content))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8c\x05posix(\x8c\x06system\x85R\x8c\x01x\x93.",  # a name that a call makes
        b"\x80\x02\x82\x01.",  # copyreg's registry
    ],
)
def test_a_pickle_that_computes_what_it_imports_is_dangerous(tmp_path: Path, content: bytes) -> None:
    report = of_file(tmp_path, "model.pkl", content)
    assert "dangerous" in faults(report)


def test_getattr_is_fine_until_it_reaches_into_python(tmp_path: Path) -> None:
    honest = b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x05numpy\x8c\x07ndarray\x93\x8c\x03sum\x86R."
    assert faults(of_file(tmp_path, "a.pkl", honest)) == set()
    evil = honest.replace(b"\x8c\x03sum", b"\x8c\x0e__subclasses__")
    assert faults(of_file(tmp_path, "a.pkl", evil)) == {"dangerous"}


def test_danger_in_arrays_of_objects_and_in_zips_is_found(tmp_path: Path) -> None:
    array = np.array([Calls(os.system, "x")], dtype=object)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, array, allow_pickle=True)
    np.savez(npz, a=np.zeros(3), b=array)
    state = io.BytesIO()
    torch.save({"a": torch.zeros(2), "b": Calls(os.system, "x")}, state)
    old = io.BytesIO()
    torch.save({"b": Calls(os.system, "x")}, old, _use_new_zipfile_serialization=False)
    contents = {
        "a.npy": npy.getvalue(),
        "a.npz": npz.getvalue(),
        "a.joblib": joblib_bytes(array),
        "model.pt": state.getvalue(),
        "old.pt": old.getvalue(),
        "unnamed": gzip.decompress(gzip.compress(pickle.dumps(Calls(os.system, "x")))),
    }
    for name, content in contents.items():
        assert "dangerous" in faults(of_file(tmp_path, name, content)), name


def test_a_module_of_the_models_own_named_like_a_dangerous_one_hides_nothing(tmp_path: Path) -> None:
    files = {
        "model.pkl": b"cos\nsystem\n(S'x'\ntR.",
        "code/os.py": b"",
        "code/inference.py": b"def model_fn(d): ...\n",
    }
    assert "dangerous" in faults(checked(tar_gz(tmp_path / "m.tar.gz", files)))


def test_numpys_functions_are_no_danger_for_their_names(tmp_path: Path) -> None:
    for name in (b"trace", b"log1p", b"compress"):
        assert faults(of_file(tmp_path, "model.pkl", b"cnumpy\n" + name + b"\n.")) == set()


def test_what_a_pickle_is_made_of_may_be_its_own_code_or_missing(tmp_path: Path) -> None:
    content = b"\x80\x02cmy_features\nScaler\n)\x81."
    assert told(of_file(tmp_path, "model.pkl", content)) == {"module-missing"}
    own = {"code/my_features.py": "class Scaler: ...\n"}
    report = checked(tar_gz(tmp_path / "m.tar.gz", {"model.pkl": content, **own}))
    assert faults(report) == {"own-code-unused"}
    own["code/inference.py"] = "def predict_fn(data, model): ...\n"
    report = checked(tar_gz(tmp_path / "m.tar.gz", {"model.pkl": content, **own}))
    assert report.findings == []
    assert {(each.name, each.kind) for each in only(report).imports} == {("my_features.Scaler", "own code")}


def test_a_class_of_the_script_that_saved_the_model_is_a_fault(tmp_path: Path) -> None:
    report = of_file(tmp_path, "model.pkl", b"\x80\x02c__main__\nScaler\n)\x81.")
    assert faults(report) == {"class-of-a-script"}


def test_code_that_travels_in_a_pickle_is_a_warning(tmp_path: Path) -> None:
    content = b"\x80\x02ccloudpickle.cloudpickle\n_make_function\n."
    assert "code-in-a-pickle" in told(of_file(tmp_path, "model.pkl", content))


# --- damage


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(list(range(1000)))[:-10],
        b"\x80\x04\xff.",
        b"\x80\x04.",
        b"\x80\x04h\x07.",
        b"\x80\x04t.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"x",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x",
        joblib_bytes(np.zeros(10_000))[:-100],
        joblib_bytes(np.zeros(10_000), 3)[:-20],
        joblib_bytes(np.zeros(10_000), ("lzma", 1))[:-20],
    ],
)
def test_a_damaged_model_is_a_fault(tmp_path: Path, content: bytes) -> None:
    assert faults(of_file(tmp_path, "model.pkl", content)) == {"damaged"}


def test_what_takes_too_long_is_said_to_be_looked_into_in_part() -> None:
    found = scan(Source(io.BytesIO(pickle.dumps(list(range(100_000)))), Limits(-1)))
    assert found.problem == "it takes too long to be read to its end"
    assert not found.is_damaged


@given(st.binary(max_size=200).map(lambda data: b"\x80\x04" + data))
@settings(max_examples=200)
def test_no_bytes_make_a_scan_fail(content: bytes) -> None:
    scanned(content)


@given(st.data())
@settings(max_examples=80)
def test_no_change_to_a_pickle_makes_a_scan_fail(data: st.DataObject) -> None:
    content = bytearray(joblib_bytes(pipeline()))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    scanned(bytes(content))


# --- frameworks


@pytest.mark.parametrize("form", ["ubj", "json", "deprecated"])
def test_xgboosts_own_formats_tell_version_and_columns(tmp_path: Path, form: str) -> None:
    model = only(of_file(tmp_path, "xgboost-model", xgboost_bytes(form)))
    assert model.written_by["xgboost"] == xgb.__version__[: None if form != "deprecated" else 3]
    assert model.columns == 4
    assert model.column_names == (None if form == "deprecated" else NAMES)


def test_the_old_binary_format_is_told_before_it_ends(tmp_path: Path) -> None:
    report = of_file(tmp_path, "model.bin", xgboost_bytes("deprecated"))
    report = of_file(tmp_path, "xgboost-model", xgboost_bytes("deprecated"))
    assert told(report) == {"version"}
    assert "no XGBoost from 3.1 on reads" in text_of(report, "version")


def test_a_model_of_a_newer_xgboost_that_ours_would_misread_is_told(tmp_path: Path) -> None:
    text = xgboost_bytes("json").decode()
    at = text.index('"base_score":"') + len('"base_score":"')
    newer = (text[:at] + "[" + text[at:].replace('"', ']"', 1)).replace('"version":[3,0,', '"version":[3,1,')
    report = of_file(tmp_path, "model.json", newer.encode())
    assert told(report) == {"version"}
    assert "would take it for 0.5" in text_of(report, "version")


def test_another_scikit_learn_is_a_warning_with_both_versions(tmp_path: Path) -> None:
    import sklearn

    ours = sklearn.__version__.encode()
    content = pickle.dumps(pipeline()).replace(bytes([len(ours)]) + ours, b"\x051.0.2")
    report = of_file(tmp_path, "model.pkl", content)
    assert told(report) == {"version"}
    assert "scikit-learn 1.0.2" in text_of(report, "version")
    assert sklearn.__version__ in text_of(report, "version")


def test_skops_files_tell_version_columns_and_class(tmp_path: Path) -> None:
    x, y = table()
    skops.io.dump(LogisticRegression().fit(x.to_numpy(), y), tmp_path / "model.skops")
    model = only(of_file(tmp_path, "model.skops", (tmp_path / "model.skops").read_bytes()))
    assert model.columns == 4
    assert model.written_by.keys() == {"scikit-learn"}
    assert model.model == "sklearn.linear_model._logistic.LogisticRegression"


@functools.cache
def _torch_files() -> dict[str, bytes]:
    net = torch.nn.Linear(2, 1)
    out = {name: io.BytesIO() for name in ("script", "state", "old", "whole", "export")}
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), out["script"])
    torch.save(net.state_dict(), out["state"])
    torch.save(net.state_dict(), out["old"], _use_new_zipfile_serialization=False)
    torch.save(net, out["whole"])
    torch.export.save(torch.export.export(net, (torch.zeros(1, 2),)), out["export"])
    return {name: stream.getvalue() for name, stream in out.items()}


def test_pytorchs_files_are_told_apart_and_what_the_handler_refuses_is_a_fault(tmp_path: Path) -> None:
    files = _torch_files()
    forms = {
        "script": ("TorchScript", set()),
        "state": ("state_dict (torch.save)", {"torch"}),
        "old": ("state_dict (torch.save)", {"torch"}),
        "whole": ("pickle of Python objects (torch.save)", {"torch"}),
        "export": ("torch.export archive", set()),
    }
    for name, (form, wrong) in forms.items():
        report = of_file(tmp_path, "model.pt", files[name])
        assert only(report).form == form, name
        assert faults(report) == wrong, name
    exported = only(of_file(tmp_path, "model.pt2", files["export"]))
    assert exported.written_by["torch"] == str(torch.__version__)
    code = {"code/inference.py": b"def model_fn(model_dir): ...\n"}
    assert faults(checked(tar_gz(tmp_path / "m.tar.gz", {"model.pt": files["state"], **code}))) == set()


def test_a_zip_that_is_damaged_is_no_traceback(tmp_path: Path) -> None:
    content = _torch_files()["state"]
    assert faults(of_file(tmp_path, "model.pt", content[:-30]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x", "y")
    assert faults(of_file(tmp_path, "model.pt", out.getvalue())) == {"not-a-model"}


# --- the handlers' own rules


_FILES = """
model.pkl model.joblib a.pkl b.sav c.joblib.gz model.pt a.pt b.bin x.safetensors model.ubj m.json README
xgboost-model readme.md notes.txt .hidden.pkl model.skops weights MODEL.PKL model.PT metadata.json data.csv
LICENSE t.tar.gz
"""
_NAMES = st.sampled_from(_FILES.split())
_CONTENTS = st.sampled_from([b"\x80\x04N.", b"{}", b'{"learner": 1}', b"text", b"", b'{"a": 1'])


@given(st.dictionaries(_NAMES, _CONTENTS, max_size=5))
@settings(max_examples=70)
def test_which_files_are_read_is_what_the_handlers_read(files: dict[str, bytes]) -> None:
    import tempfile

    from mmekit import formats
    from mmekit.errors import InvalidModel
    from mmekit_handlers import sklearn_files, torch_files, xgboost_files
    from mmekit_toolkit.archive.model_files import Ambiguous, read_by

    with tempfile.TemporaryDirectory() as path:
        here = folder(Path(path), files)

        def ours(runtime: str) -> list[str] | None:
            try:
                return [file.name for file in read_by(runtime, here)] or None
            except Ambiguous:
                return None

        def theirs(find: Callable[[str], Any]) -> list[str] | None:
            try:
                return [find(path).name]
            except InvalidModel:
                return None

        assert ours(formats.SKLEARN) == theirs(sklearn_files.find)
        with pytest.MonkeyPatch.context() as patch:
            # Which file it is, not what kind of file.
            patch.setattr(torch_files, "identify", lambda file: file)
            assert ours(formats.PYTORCH) == theirs(torch_files.find)
        paths, _ = xgboost_files._model_files(path)
        assert (ours(formats.XGBOOST) or []) == [os.path.basename(each) for each in paths]


def test_ordered_dicts_and_counters_are_expected(tmp_path: Path) -> None:
    content = pickle.dumps([collections.OrderedDict(a=1), collections.Counter("ab"), np.float64(1)])
    assert faults(of_file(tmp_path, "model.pkl", content)) == {"not-a-model"}


# --- what hostile files try


def _text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def _global(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


def _called(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


_GETATTR = _global("builtins", "getattr")
_SUBCLASSES = _called(_GETATTR, _global("numpy", "ndarray"), _text("__subclasses__"))


@pytest.mark.parametrize(
    "content",
    [
        _called(_called(_GETATTR, _global("joblib", "numpy_pickle"), _text("os")), _text("x")),
        _called(_called(_GETATTR, _called(_global("numpy", "array")), _text("_sys"))),
        _called(_called(_global("functools", "partial"), _GETATTR), _text("x")),
        _called(_global("builtins", "map"), b"]" + _GETATTR + b"a"),
        b"(" + _global("numpy", "ndarray") + _text("__subclasses__") + b"ibuiltins\ngetattr\n",
        _SUBCLASSES + b"0N",  # what is made is thrown away
        _called(_global("collections", "_sys.modules")),
        _called(_global("enum", "bltns.eval"), _text("1")),
        _called(_global("dataclasses", "_create_fn"), _text("x")),
        _called(_global("uuid", "_get_command_stdout"), _text("echo")),
        _called(_global("types", "LambdaType")),
        _called(_global("torch.utils.collect_env", "run"), _text("echo")),
        _called(_global("pydoc", "pipepager"), _text("x"), _text("cat")),
    ],
)
def test_ways_around_the_names_are_seen_through(tmp_path: Path, content: bytes) -> None:
    assert "dangerous" in faults(of_file(tmp_path, "model.pkl", b"\x80\x04" + content + b"."))


def test_pythons_own_library_is_a_warning_where_models_do_not_use_it(tmp_path: Path) -> None:
    for name in (("zipfile", "ZipFile"), ("logging", "FileHandler")):
        report = of_file(tmp_path, "model.pkl", b"\x80\x04" + _called(_global(*name)) + b".")
        assert (faults(report), told(report)) == (set(), {"unusual-import"})
    for name in (("logging", "getLogger"), ("datetime", "datetime"), ("pathlib._local", "PosixPath")):
        report = of_file(tmp_path, "model.pkl", b"\x80\x04" + _called(_global(*name)) + b".")
        assert report.findings == []


def test_cloudpickle_inside_joblib_is_cloudpickle(tmp_path: Path) -> None:
    content = _called(_global("joblib.externals.cloudpickle.cloudpickle", "subimport"), _text("os"))
    assert "code-in-a-pickle" in told(of_file(tmp_path, "model.pkl", b"\x80\x04" + content + b"."))


@pytest.mark.parametrize("item", [b"X\0\x10\0\0" + bytes(4096), b"V" + b"a" * 60_000 + b"\n", b"]\x94"])
def test_what_takes_too_much_memory_is_looked_into_in_part(item: bytes) -> None:
    found = scan(Source(io.BytesIO(b"\x80\x04(" + item * 1000 + b"l."), Limits(30, kept_bytes=100_000)))
    assert found.problem == "it takes too much memory to be read to its end"
    assert not found.is_damaged


def test_limits_hold_for_all_files_together() -> None:
    limits = Limits(30, kept_bytes=100_000)
    content = pickle.dumps(list(range(400)))
    problems = [scan(Source(io.BytesIO(content), limits)).problem for _ in range(3)]
    assert problems == [None, *["it takes too much memory to be read to its end"] * 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.ubj", b"{L\0\0\0\0\0\0\0\x07learner{" + b"objective{" * 200_000 + b"}"),
        ("model.json", b'{"learner": {}, "version":[' + b"1" * 5000 + b",1,1]}"),
        ("model.safetensors", (2 * 10**7).to_bytes(8, "little") + b'{"a":[' + b"[]," * 7_000_000),
    ],
    ids=["ubj", "version", "safetensors"],
)
def test_no_frameworks_file_keeps_a_check_busy_or_ends_it(tmp_path: Path, name: str, content: bytes) -> None:
    begun = time.process_time()
    of_file(tmp_path, name, content)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("schema", [b'"_sklearn_version": {' * 300_000, b"[" * 100_000])
def test_no_skops_schema_keeps_a_check_busy(tmp_path: Path, schema: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", schema)
    begun = time.process_time()
    assert faults(of_file(tmp_path, "model.skops", out.getvalue())) == {"not-a-model"}
    assert time.process_time() - begun < 10


def test_a_torch_version_that_is_no_text_is_none(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/models/model.json", b'{"torch_version": "\xff\\"}')
    assert only(of_file(tmp_path, "model.pt2", out.getvalue())).written_by == {}


def test_what_is_beyond_those_that_are_looked_into_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_files, "_MAX_MEMBERS", 3)
    monkeypatch.setattr(inspection, "_MAX_FILES", 3)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.pkl", b"N.")
    assert "more than 3 pickles" in text_of(of_file(tmp_path, "a.npz", out.getvalue()), "not-looked-into")
    many = {f"{number}.txt": b"x" for number in range(4)}
    report = of_file(tmp_path, "model.ubj", xgboost_bytes(), **many)
    assert [model.file for model in report.models] == ["model.ubj"]
    assert "of which 3 were looked into" in text_of(report, "not-looked-into")
