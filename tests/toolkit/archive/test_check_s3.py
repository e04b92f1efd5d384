"""``mmekit archive check s3://…`` against a real S3 server, and ``--load`` in a real server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.models import folder, sklearn_bytes, tar_gz, xgboost_bytes
from tests.endpoint.object_store import ObjectStore, Unavailable
from tests.support.server import COMMAND

MODEL = {"model.ubj": xgboost_bytes()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    path = tmp_path_factory.mktemp("store")
    try:
        made = ObjectStore(path)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with made:
        client = made.client()
        client.create_bucket(Bucket="models")
        tar_gz(path / "churn.tar.gz", MODEL)
        client.upload_file(str(path / "churn.tar.gz"), "models", "below/churn.tar.gz")
        tar_gz(path / "bad.tar.gz", {"churn/model.ubj": b"x"})
        client.upload_file(str(path / "bad.tar.gz"), "models", "bad.tar.gz")
        client.put_object(Bucket="models", Key="large.tar.gz", Body=bytes(3_000_000))
        yield made


def check(
    *arguments: str | Path, store: ObjectStore | None = None, keys: tuple[str, str] | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", **more}
    environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
    if store:
        key, secret = keys or store.owner
        environ |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1"}
        environ["AWS_ENDPOINT_URL"] = store.url
    command = [COMMAND, "archive", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environ)


def test_an_object_is_fetched_checked_and_deleted(store: ObjectStore, tmp_path: Path) -> None:
    done = check("--json", "s3://models/below/churn.tar.gz", store=store, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert report["source"] == "s3://models/below/churn.tar.gz"
    assert report["loads"]["framework"] == "XGBoost"
    assert os.listdir(tmp_path) == []


def test_faults_name_the_object_not_a_temporary_file(store: ObjectStore) -> None:
    done = check("s3://models/bad.tar.gz", store=store)
    assert done.returncode == 3
    assert "The model folder s3://models/bad.tar.gz holds only the folder 'churn'" in done.stdout
    assert "/tmp" not in done.stdout


def test_an_object_that_is_not_there_is_said(store: ObjectStore) -> None:
    done = check("s3://models/gone.tar.gz", store=store)
    assert (done.returncode, done.stdout) == (7, "")
    assert "there is no object s3://models/gone.tar.gz" in done.stderr


def test_a_bucket_that_is_not_there_is_said(store: ObjectStore) -> None:
    done = check("s3://gone/churn.tar.gz", store=store)
    assert done.returncode == 7
    assert "gone" in done.stderr


def test_an_object_larger_than_the_volume_is_not_fetched(store: ObjectStore) -> None:
    done = check("--volume-gb", "0.001", "s3://models/large.tar.gz", store=store)
    assert done.returncode == 1
    assert "is not fetched" in done.stderr


def test_a_stranger_is_told_what_is_not_allowed(store: ObjectStore) -> None:
    done = check("s3://models/below/churn.tar.gz", store=store, keys=store.stranger)
    assert done.returncode == 5, done.stderr
    assert "not allowed" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_credentials_it_says_how_to_sign_in(store: ObjectStore) -> None:
    done = check("s3://models/below/churn.tar.gz", AWS_ENDPOINT_URL=store.url, AWS_REGION="us-east-1")
    assert done.returncode == 5
    assert "aws sso login" in done.stderr


# --- --load


def test_a_load_is_measured_and_its_sample_is_sent(tmp_path: Path) -> None:
    files = {
        **MODEL,
        "MAR-INF/sample-request": "1,2,3,4\n",
        "MAR-INF/sample-request.json": '{"contentType": "text/csv", "warmUp": 1}',
    }
    tar_gz(tmp_path / "m.tar.gz", files)
    done = check("--json", "--load", tmp_path / "m.tar.gz", MMEKIT_PRELOAD="xgboost", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)[0]["loaded"]
    assert loaded["answer_status"] == 200
    assert loaded["load_ms"] > 0
    assert loaded["first_call_ms"] > 0
    assert loaded["memory_bytes"] is not None
    assert os.listdir(tmp_path) == ["m.tar.gz"]


def test_what_only_a_load_finds_is_a_fault(tmp_path: Path) -> None:
    code = "def model_fn(model_dir):\n    raise ValueError('no weights')\n"
    path = folder(tmp_path / "m", {**MODEL, "code/inference.py": code})
    assert check(path).returncode == 0
    done = check("--load", path, MMEKIT_PRELOAD="none")
    assert done.returncode == 3
    assert "the server did not load it (500)" in done.stdout
    assert "no weights (inference.py:2)" in done.stdout


def test_a_model_that_does_not_answer_its_sample_is_a_fault(tmp_path: Path) -> None:
    code = "def predict_fn(data, model):\n    raise ValueError('not today')\n"
    files = {"model.pkl": sklearn_bytes(), "code/inference.py": code, "MAR-INF/sample-request": "1,2,3,4\n"}
    files["MAR-INF/sample-request.json"] = '{"contentType": "text/csv"}'
    done = check("--load", folder(tmp_path / "m", files), MMEKIT_PRELOAD="none")
    assert done.returncode == 3
    assert "the model answered its sample with 500" in done.stdout


def test_a_model_with_faults_is_not_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')\ndef model_fn(model_dir): ...\n"
    path = folder(tmp_path / "m", {"code/inference.py": code, "model.pkl": b"cos\nsystem\n."})
    done = check("--load", path)
    assert done.returncode == 3
    assert "it was not loaded, as it has faults" in done.stdout
    assert not trace.exists()
