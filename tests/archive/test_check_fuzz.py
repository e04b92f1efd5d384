"""Whatever the bytes of an archive: there is a report, soon, nothing is left behind and nothing was run."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit_toolkit.archive.check import Order, check
from mmekit_toolkit.archive.findings import Level
from mmekit_toolkit.archive.report import Report
from tests.archive.models import joblib_bytes, pipeline, xgboost_bytes
from tests.archive.support import archive_bytes, ended, tar_bytes, tar_info, zip_bytes

#: What a check of a few kilobytes may take on a busy machine.
_LONG_S = 20


class _Traced:
    """A pickle that would leave a trace."""

    def __reduce__(self) -> object:
        return os.system, ("touch mmekit-was-here",)


def _files() -> list[tuple[str, bytes]]:
    return [
        ("model.ubj", xgboost_bytes()),
        ("model.joblib", joblib_bytes(pipeline(), 3)),
        ("evil.pkl", pickle.dumps(_Traced())),
        ("code/inference.py", b"def model_fn(model_dir): ...\n"),
        ("MAR-INF/MANIFEST.json", b'{"model": {"modelName": "m"}}'),
        ("MAR-INF/sample-request.json", b'{"contentType": "text/csv"}'),
        ("MAR-INF/sample-request", b"1,2,3,4"),
        ("MAR-INF/signature.json", b'{"inputs": [{"data_name": "x", "data_shape": [0, 4]}]}'),
        ("requirements.txt", b"numpy\n-r other.txt\n"),
    ]


_SEEDS = {form: archive_bytes(form, _files()) for form in ("zip", "tar", "tar.gz")}


def _report(content: bytes, tmp: Path) -> Report:
    """Check these bytes; hold that it is soon done and leaves nothing."""
    (tmp / "m.tar.gz").write_bytes(content)
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp / "temp"))
        found = check(tmp / "m.tar.gz", "m.tar.gz", Order(volume_bytes=50_000_000))
    assert time.monotonic() - started < _LONG_S
    assert os.listdir(tmp / "temp") == []
    assert not Path("mmekit-was-here").exists()
    return found


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz")
    (path / "temp").mkdir()
    return path


@given(content=st.binary(max_size=2000))
@settings(max_examples=30)
def test_no_bytes_make_a_check_fail(room: Path, content: bytes) -> None:
    assert [f for f in _report(content, room).findings if f.level is Level.FAULT]


@pytest.mark.parametrize("form", _SEEDS)
@given(data=st.data())
@settings(max_examples=15)
def test_no_change_to_an_archive_makes_a_check_fail(room: Path, form: str, data: st.DataObject) -> None:
    content = bytearray(_SEEDS[form])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.none() | st.integers(0, len(content)))
    _report(bytes(content[:end]), room)


@given(data=st.data())
@settings(max_examples=20)
def test_no_change_behind_gzips_checksum_makes_a_check_fail(room: Path, data: st.DataObject) -> None:
    content = bytearray(_SEEDS["tar"])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _report(gzip.compress(bytes(content), 1, mtime=0), room)


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["model.pkl", "a/b/c", "../x", "/x", "code/inference.py", "._x", "MAR-INF/MANIFEST.json", "x/", "."]
)
_KINDS = st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6", b"7"])


@given(st.lists(st.tuples(_NAMES, _KINDS, st.binary(max_size=50)), max_size=8))
@settings(max_examples=20)
def test_no_members_make_a_check_fail(room: Path, members: list[tuple[str, bytes, bytes]]) -> None:
    files = [
        (tar_info(name, kind, len(content) if kind == b"0" else 0), content if kind == b"0" else b"")
        for name, kind, content in members
    ]
    _report(gzip.compress(ended(tar_bytes(files)), 1, mtime=0), room)
    plain = [(name, content) for name, _, content in members]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of names that are there twice
        _report(zip_bytes(plain), room)


def test_a_bomb_is_left_as_it_is(room: Path) -> None:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as zipped:
        header = tarfile.TarInfo("zeros.pkl")
        header.size = 2**33
        zipped.write(header.tobuf())
        for _ in range(64):
            zipped.write(bytes(1_000_000))
    found = _report(out.getvalue(), room)
    assert "too-large" in {finding.name for finding in found.findings}
    assert found.models == []


def test_a_bomb_inside_a_pickles_compression_takes_no_memory(room: Path) -> None:
    import resource

    zeros = gzip.compress(b"\x80\x04B" + (200_000_000).to_bytes(4, "little") + bytes(200_000_000) + b".", 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = _report(archive_bytes("tar.gz", [("model.joblib", zeros)]), room)
    assert [finding.name for finding in found.findings] == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_zip_in_a_model_that_claims_millions_of_members_is_refused_before_they_are_made(room: Path) -> None:
    entry = zip_bytes([("x", b"")])
    central = entry[entry.index(b"PK\1\2") : entry.index(b"PK\5\6")]
    body = entry[: entry.index(b"PK\1\2")]
    many = central * 120_000
    end = b"PK\5\6" + bytes(4) + b"\xff\xff\xff\xff" + len(many).to_bytes(4, "little")
    end += len(body).to_bytes(4, "little") + bytes(2)
    found = _report(archive_bytes("tar.gz", [("model.pt", body + many + end)]), room)
    assert {"not-a-model"} == {f.name for f in found.findings if f.level is Level.FAULT}


def test_the_seeds_are_archives() -> None:
    assert zipfile.is_zipfile(io.BytesIO(_SEEDS["zip"]))
