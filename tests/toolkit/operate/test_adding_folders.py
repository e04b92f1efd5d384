"""``mmekit models add`` of folders: packed, checked, called."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint.service import Service, archive
from tests.toolkit.commands import Mmekit, described, local

_PROGRAM = """
def model_fn(model_dir):
    return 2.0


def input_fn(body, content_type):
    return [float(value) for value in body.split(",")]


def predict_fn(data, model):
    return [model * value for value in data]
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A local endpoint of real model servers."""
    state = tmp_path_factory.mktemp("real") / "state"
    with Service(state, "--launcher", "process", program=None) as running:
        running.s3.create_bucket(Bucket="models")
        running.create("churn", url="s3://models/churn/", environment={"MMEKIT_PRELOAD": "none"})
        yield running


@pytest.fixture(scope="module")
def mmekit_real(real: Service) -> Mmekit:
    return local(real.url)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "doubles"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(_PROGRAM)
    return folder


def test_a_folder_is_packed_uploaded_once_and_called(mmekit_real: Mmekit, model: Path) -> None:
    (target,) = mmekit_real("models", "add", "churn", model).lines
    assert target.startswith("doubles-")
    (model / ".DS_Store").write_bytes(b"junk that is not packed")
    again = mmekit_real("models", "add", "churn", model)
    assert again.lines == [target], "the same files are the same archive"
    assert "is there already" in again.stderr
    answer = mmekit_real("invoke", "churn", "doubles", "--data", "1,2", "--content-type", "text/csv")
    assert answer.raw == b"[2.0,4.0]"


def test_a_folder_takes_another_name_with_folders_of_its_own(mmekit_real: Mmekit, model: Path) -> None:
    (target,) = mmekit_real("models", "add", "churn", model, "--name", "tenant_a/doubles").lines
    assert target.startswith("tenant_a/doubles-")


def test_an_archive_with_faults_keeps_all_from_going_up(
    mmekit_real: Mmekit, real: Service, model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    (broken / "code").mkdir(parents=True)
    (broken / "code" / "inference.py").write_text("def model_fn(")
    before = real.s3.list_objects_v2(Bucket="models")["KeyCount"]
    (model / "code" / "inference.py").write_text(_PROGRAM + "\n\n# another version\n")
    done = mmekit_real("models", "add", "churn", model, broken, code=3)
    assert ": fault: " in done.stderr
    assert "nothing was uploaded. --no-check uploads all the same." in done.stderr
    assert real.s3.list_objects_v2(Bucket="models")["KeyCount"] == before
    assert len(mmekit_real("models", "add", "churn", model, broken, "--no-check").lines) == 2


def test_an_archive_that_its_volume_cannot_hold_is_a_fault(mmekit_real: Mmekit, tmp_path: Path) -> None:
    weights = tarfile.TarInfo("weights.bin")
    weights.size = 1024**3
    zeros = gzip.compress(bytes(2**26))
    large = tmp_path / "large.tar.gz"
    large.write_bytes(gzip.compress(weights.tobuf()) + 16 * zeros + archive({"code/inference.py": _PROGRAM}))
    variant = {"instance_type": "ml.m5.large", "instances": 1, "volume_gb": 1}
    file = described(tmp_path, "churn", "s3://models/churn/", variants=[variant])
    done = mmekit_real("models", "add", file, large, "--dry-run", code=3)
    assert ": fault: " in done.stderr


def test_folders_are_synchronised_and_then_there_is_nothing_to_do(
    mmekit_real: Mmekit, real: Service, model: Path, tmp_path: Path
) -> None:
    file = described(tmp_path, "churn", "s3://models/synchronised/")
    folder = tmp_path / "models"
    folder.mkdir()
    model.rename(folder / "doubles")
    mmekit_real("models", "sync", file, folder)
    done = mmekit_real("models", "sync", file, folder, "--delete", "--yes")
    assert "Nothing to do" in done.stderr
    (found,) = real.s3.list_objects_v2(Bucket="models", Prefix="synchronised/")["Contents"]
    assert found["Key"].startswith("synchronised/doubles-")


def test_a_folder_that_cannot_be_packed_is_told_so(mmekit_real: Mmekit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no files to pack" in mmekit_real("models", "add", "churn", tmp_path / "empty", code=1).stderr
