"""Model folders: what is a model in them, what each format loads to, what is said of what does not load."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import re
import subprocess
import sys
import warnings
import zlib
from collections import OrderedDict
from pathlib import Path

import joblib
import numpy as np
import pytest
import xgboost as xgb

from mmekit.errors import InvalidModel, ModelLoadError
from mmekit_handlers.base import is_out_of_memory
from mmekit_handlers.xgboost_files import load_boosters
from mmekit_handlers.xgboost_version import find_version
from tests.support.xgboost_models import MULTI_MODEL, Served, csv_of, data, save, train

OURS = tuple(map(int, xgb.__version__.split(".")[:3]))
OFF = {**MULTI_MODEL, "SAGEMAKER_INFERENCE_ENSEMBLE": "false"}


def predictions(folder: Path, environ: dict[str, str] = MULTI_MODEL) -> list[float]:
    return json.loads(Served(folder, environ).ask(csv_of(data()[0][:5]))[0])


def expected(booster: xgb.Booster) -> list[float]:
    return booster.predict(xgb.DMatrix(data()[0][:5], nthread=1)).tolist()


def refusal(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as raised:
        load_boosters(str(folder))
    return raised.value.message


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("model.ubj", "ubj"),
        ("model.json", "json"),
        ("xgboost-model", "ubj"),
        ("xgboost-model", "json"),
        ("xgboost-model", "deprecated"),
        ("xgboost-model", "pickle"),
        ("model.bst", "deprecated"),
        ("model.bst", "ubj"),
        ("model.model", "json"),
        ("model.deprecated", "deprecated"),
        ("model.pkl", "pickle"),
        ("model.pickle", "pickle"),
        ("model.ubj", "json"),
        ("anything.bin", "ubj"),
    ],
)
def test_loads_every_format_under_any_name(name: str, file_format: str, tmp_path: Path) -> None:
    booster = train()
    save(booster, tmp_path / name, file_format)
    assert predictions(tmp_path) == expected(booster)


def test_loads_the_old_binary_format_without_its_magic(tmp_path: Path) -> None:
    """As versions before 1.0 wrote it."""
    booster = train()
    save(booster, tmp_path / "xgboost-model", "deprecated")
    raw = (tmp_path / "xgboost-model").read_bytes()
    assert raw.startswith(b"binf")
    (tmp_path / "xgboost-model").write_bytes(raw[4:])
    assert predictions(tmp_path) == expected(booster)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_loads_pickles_of_every_protocol_without_a_suffix(protocol: int, tmp_path: Path) -> None:
    booster = train()
    (tmp_path / "xgboost-model").write_bytes(pickle.dumps(booster, protocol))
    assert predictions(tmp_path) == expected(booster)


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_loads_what_joblib_wrote(compress, tmp_path: Path) -> None:
    wrapper = xgb.XGBRegressor(n_estimators=3, n_jobs=1).fit(*data())
    wrapper.seen_ = np.arange(1000)  # joblib puts arrays between the opcodes
    joblib.dump(wrapper, tmp_path / "model.joblib", compress)
    assert predictions(tmp_path) == expected(wrapper.get_booster())


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        (xgb.XGBRegressor, "reg:squarederror"),
        (xgb.XGBClassifier, "binary:logistic"),
        (xgb.XGBClassifier, "multi:softprob"),
        (xgb.XGBRFRegressor, "reg:squarederror"),
        (xgb.XGBRanker, "rank:ndcg"),
    ],
)
@pytest.mark.parametrize("way", ["pickle", "json"])
def test_wrappers_of_scikit_learn_are_served_as_their_booster(
    kind, objective: str, way: str, tmp_path: Path
) -> None:
    x, y = data(objective)
    more = {"group": [60, 60]} if kind is xgb.XGBRanker else {}
    wrapper = kind(n_estimators=3, n_jobs=1).fit(x, y, **more)
    if way == "pickle":
        save(wrapper, tmp_path / "model.pkl", "pickle")
    else:
        # What its save_model adds; itself it fails beside scikit-learn 1.8 and later.
        wrapper.get_booster().set_attr(scikit_learn='{"_estimator_type": "regressor"}')
        save(wrapper.get_booster(), tmp_path / "model.json", "json")
    assert predictions(tmp_path) == expected(wrapper.get_booster())


def test_a_wrappers_own_missing_value_is_kept(tmp_path: Path) -> None:
    x, y = data()
    wrapper = xgb.XGBRegressor(n_estimators=3, n_jobs=1, missing=-1).fit(np.nan_to_num(x, nan=-1), y)
    save(wrapper, tmp_path / "model.pkl", "pickle")
    rows = np.array([[0.3, -1, 1, 2], [0.3, 0, 1, 2]])
    body, _ = Served(tmp_path).ask(csv_of(rows))
    assert json.loads(body) == wrapper.predict(rows).tolist()


def test_a_pickled_wrapper_needs_no_scikit_learn(tmp_path: Path) -> None:
    save(
        xgb.XGBClassifier(n_estimators=2, n_jobs=1).fit(*data("binary:logistic")),
        tmp_path / "m.pkl",
        "pickle",
    )
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('sklearn', 'joblib', 'pandas'):\n"
        "            raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from mmekit_handlers.xgboost_files import load_boosters\n"
        "print(load_boosters(sys.argv[1])[0].booster.num_features())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["4"]


# Folders


def test_several_files_are_averaged_in_order_of_name(tmp_path: Path) -> None:
    boosters = [train(eta=eta) for eta in (0.1, 0.5, 0.9)]
    for name, booster in zip("cab", boosters, strict=True):
        save(booster, tmp_path / f"xgboost-model-{name}", "ubj")
    each = np.array([expected(booster) for booster in boosters], np.float32)
    np.testing.assert_allclose(predictions(tmp_path), each.mean(axis=0), rtol=1e-6)
    assert predictions(tmp_path, OFF) == expected(boosters[1])


@pytest.mark.parametrize("objective", ["multi:softmax", "binary:hinge"])
def test_labels_are_voted_on_and_the_smallest_wins_a_tie(objective: str, tmp_path: Path) -> None:
    more = {"num_class": 3} if objective.startswith("multi:") else {}
    boosters = [
        train(objective, rounds=rounds, seed=rounds, subsample=0.3, **more) for rounds in (1, 1, 2, 3)
    ]
    for place, booster in enumerate(boosters):
        save(booster, tmp_path / f"model-{place}.json", "json")
    rows = data()[0]
    votes = np.array([booster.predict(xgb.DMatrix(rows, nthread=1)) for booster in boosters])
    winners = [min(set(column), key=lambda label: (-list(column).count(label), label)) for column in votes.T]
    assert len({tuple(column) for column in votes.T}) > 2
    assert json.loads(Served(tmp_path).ask(csv_of(rows))[0]) == winners


def test_what_lies_beside_a_model_is_read_over(tmp_path: Path) -> None:
    booster = train()
    save(booster, tmp_path / "xgboost-model", "ubj")
    for name in (
        ".DS_Store",
        "requirements.txt",
        "README.md",
        "LICENSE",
        "metadata.bin",
        "metrics.csv",
        "x.npy",
    ):
        (tmp_path / name).write_text("not a model")
    (tmp_path / "hyperparameters.json").write_text('{"eta": 0.1}')
    for folder in ("code", "sub"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "inference.py").write_text("raise SystemExit")
    assert predictions(tmp_path) == expected(booster)


def test_a_linked_file_is_a_model(tmp_path: Path) -> None:
    save(train(), tmp_path / ".stored", "ubj")
    (tmp_path / "model.ubj").symlink_to(tmp_path / ".stored")
    assert predictions(tmp_path) == expected(train())


def test_a_folder_without_a_model_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "hyperparameters.json").write_text("{}")
    with pytest.raises(
        InvalidModel, match=r"no XGBoost model file in .*; found hyperparameters.json, notes.txt"
    ):
        load_boosters(str(tmp_path))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            lambda: xgb.train({"nthread": 1}, xgb.DMatrix(np.eye(3), np.arange(3), nthread=1), 1),
            "features 4, the second 3",
        ),
        (lambda: train("multi:softprob", num_class=3), "classes and targets"),
        (lambda: train(feature_names=list("abcd")), "feature names None, the second ('a', 'b', 'c', 'd')"),
    ],
)
def test_boosters_of_different_shape_are_not_averaged(other, said: str, tmp_path: Path) -> None:
    save(train(), tmp_path / "a.ubj")
    save(other(), tmp_path / "b.ubj")
    with pytest.raises(ModelLoadError) as raised:
        Served(tmp_path)
    assert "a.ubj and b.ubj cannot be averaged" in raised.value.message
    assert said in raised.value.message
    assert predictions(tmp_path, OFF) == expected(train())


# Files that do not load


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.ubj", b"", "model.ubj is empty"),
        (
            "xgboost-model",
            b"hello",
            "xgboost-model is not a model that XGBoost can read: it begins with b'hello'",
        ),
        ("model.bst", bytes(range(256)) * 4, "model.bst is not a model that XGBoost can read"),
        ("model.json", b'{"learner": ', "model.json cannot be read: "),
        ("model.json", b"not json", "model.json is not a model that XGBoost can read"),
        ("m.pkl", b"\x80\x04x", "m.pkl cannot be unpickled: "),
        ("m.pkl", b"text", "m.pkl cannot be unpickled: "),
        ("m.joblib", b"\x1f\x8bxxxx", "m.joblib is compressed and damaged"),
        ("m.pkl", pickle.dumps({"a": 1}), "m.pkl holds a builtins.dict; expected an xgboost.Booster"),
        (
            "m.pkl",
            pickle.dumps(xgb.XGBRegressor()),
            "m.pkl holds a xgboost.sklearn.XGBRegressor that cannot be used",
        ),
        (
            "m.pkl",
            pickle.dumps(OrderedDict()).replace(b"\x8c\x0bcollections", b"\x8c\x0bcollectionz"),
            "m.pkl is a pickle that needs the module collectionz, which is not installed here",
        ),
    ],
)
def test_a_file_that_is_no_model_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("file_format", ["ubj", "json", "deprecated", "pickle"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_a_cut_file_is_no_shortage_of_memory(file_format: str, part: float, tmp_path: Path) -> None:
    save(train(), tmp_path / "xgboost-model", file_format)
    raw = (tmp_path / "xgboost-model").read_bytes()
    (tmp_path / "xgboost-model").write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(ModelLoadError) as raised:
        load_boosters(str(tmp_path))
    assert raised.value.message.startswith("xgboost-model ")
    assert not is_out_of_memory(raised.value)


def test_a_damaged_length_is_no_shortage_of_memory(tmp_path: Path) -> None:
    save(train(), tmp_path / "m.ubj", "ubj")
    raw = (tmp_path / "m.ubj").read_bytes()
    (tmp_path / "m.ubj").write_bytes(raw.replace(b"base_weights[$d#L\0\0", b"base_weights[$d#L\x0f\0", 1))
    with pytest.raises(ModelLoadError, match=r"m.ubj cannot be read: a length in it is impossible") as raised:
        load_boosters(str(tmp_path))
    assert not is_out_of_memory(raised.value)


def test_too_little_memory_is_a_shortage(tmp_path: Path) -> None:
    """Without the error that warm_up makes, the process is aborted."""
    save(train(rounds=1500), tmp_path / "model.json", "json")
    program = (
        "import resource, sys\n"
        "from mmekit_handlers.base import is_out_of_memory\n"
        "from mmekit_handlers.xgboost import XGBoostHandler\n"
        "from mmekit_handlers.xgboost_files import load_boosters\n"
        "XGBoostHandler.warm_up()\n"
        "status = open('/proc/self/status').read()\n"
        "used = int(status.partition('VmData:')[2].split()[0]) << 10\n"
        "limit = used + (6 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    load_boosters(sys.argv[1])\n"
        "except Exception as error:\n"
        "    print(is_out_of_memory(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True"]


# Versions


@pytest.mark.parametrize("file_format", ["ubj", "json", "deprecated", "pickle"])
def test_every_format_says_which_version_wrote_it(file_format: str, tmp_path: Path) -> None:
    save(train(), tmp_path / "m", file_format)
    version = find_version((tmp_path / "m").read_bytes())
    assert version == (OURS[:2] if file_format == "deprecated" else OURS)


@pytest.mark.parametrize(
    ("raw", "version"),
    [
        (b'{"version": [ 1, 0,0 ], "learner"', (1, 0, 0)),
        (b"{L\0\0\0\0\0\0\0\x07version[#L\0\0\0\0\0\0\0\x03i\x03U\xc8I\x01\x00}", (3, 200, 256)),
        (b"{L\0\0\0\0\0\0\0\x07version[$i#L\0\0\0\0\0\0\0\x03\x03\x02\x01}", (3, 2, 1)),
        (b"{L\0\0\0\0\0\0\0\x07version[#L\0\0\0\0\0\0\0\x03S\x03i\x02i\x01}", None),
        (b"no version", None),
    ],
)
def test_versions_are_read_from_json_and_ubjson(raw: bytes, version: tuple[int, ...] | None) -> None:
    assert find_version(raw) == version


def test_a_file_of_another_version_names_both_and_the_conversion(tmp_path: Path) -> None:
    raw = bytes(train().save_raw("json")).replace(b'"reg:squarederror"', b'"reg:of_the_future"')
    (tmp_path / "model.json").write_bytes(re.sub(rb'"version":\[[\d,]+\]', b'"version":[9,1,0]', raw))
    assert refusal(tmp_path) == (
        "model.json cannot be read: Unknown objective function: `reg:of_the_future`. "
        f"It was written by XGBoost 9.1.0; this is XGBoost {xgb.__version__}. Unless it is damaged, load it "
        "with XGBoost 9.1.0 and save it again: booster.save_model('model.json') or .ubj"
    )


def test_a_pickle_of_another_version_names_both_and_the_conversion(tmp_path: Path) -> None:
    state = train().__getstate__()
    state["handle"] = bytearray(
        bytes(state["handle"])
        .replace(b"reg:squarederror", b"reg:squaredfuture"[:16])
        .replace(b"\x03i\x03i\x00i\x05", b"\x03i\x09i\x01i\x00")
    )
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(_Pickled(state)))
    text = refusal(tmp_path)
    assert "m.pkl cannot be unpickled: XGBoostError" in text
    assert f"It was written by XGBoost 9.1.0; this is XGBoost {xgb.__version__}." in text
    assert "load it there, save it with save_model('model.ubj')" in text


class _Pickled:
    """Pickles to a booster of the given state."""

    def __init__(self, state: dict[str, object]) -> None:
        self._state = state

    def __reduce__(self):
        # xgboost.Booster.__new__(Booster), as pickle protocol 2 would, but with a state of our own.
        return object.__new__, (xgb.Booster,), self._state


def as_written_by_3_2(raw: bytes) -> bytes:
    """Turn base_score into a list, as XGBoost 3.1 and later write it."""
    if b'"base_score":"' in raw:
        raw = re.sub(rb'"base_score":"([^"]+)"', rb'"base_score":"[\1]"', raw)
        return re.sub(rb'"version":\[[\d,]+\]', b'"version":[3,2,0]', raw)

    def listed(match: re.Match[bytes]) -> bytes:
        length = int.from_bytes(match[1], "big")
        score = raw[match.end() : match.end() + length]
        return b"base_scoreSL" + (length + 2).to_bytes(8, "big") + b"[" + score + b"]"

    out, start = b"", 0
    for match in re.finditer(rb"(?s)base_scoreSL(.{8})", raw):
        out += raw[start : match.start()] + listed(match)
        start = match.end() + int.from_bytes(match[1], "big")
    return (out + raw[start:]).replace(b"\x03i\x03i\x00i\x05", b"\x03i\x03i\x02i\x00")


@pytest.mark.skipif(OURS >= (3, 1), reason="reads them right")
@pytest.mark.parametrize("file_format", ["ubj", "json", "pickle"])
def test_a_file_that_would_be_read_wrongly_is_refused(file_format: str, tmp_path: Path) -> None:
    """XGBoost 3.0 takes the list for 0.5 without a word."""
    booster = train(base_score=7.0)
    if file_format == "pickle":
        state = booster.__getstate__()
        state["handle"] = bytearray(as_written_by_3_2(bytes(state["handle"])))
        raw = pickle.dumps(_Pickled(state))
    else:
        raw = as_written_by_3_2(bytes(booster.save_raw(file_format)))
    (tmp_path / "xgboost-model").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = pickle.loads(raw) if file_format == "pickle" else xgb.Booster(model_file=bytearray(raw))
    assert expected(loaded) != expected(booster)
    text = refusal(tmp_path)
    assert f"written by XGBoost 3.2.0; this is XGBoost {xgb.__version__}, which takes a base_score" in text
    assert "write learner.learner_model_param.base_score as a plain number ('5E-1' for '[5E-1]')" in text
    assert "xgboost-cpu==3.2.0" in text


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_versions_are_found_in_compressed_pickles(compress, tmp_path: Path) -> None:
    state = {"handle": bytearray(b"{L\0\0\0\0\0\0\0\x07version[#L\0\0\0\0\0\0\0\x03i\x08i\x01i\x00}")}
    (tmp_path / "m.joblib").write_bytes(compress(pickle.dumps(_Pickled(state))))
    assert "It was written by XGBoost 8.1.0" in refusal(tmp_path)
