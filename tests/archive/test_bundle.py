"""``mmekit archive pack DIR``: correct archives for SageMaker, the same bytes for the same files."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit.cli import main
from mmekit_toolkit.archive import bundle
from mmekit_toolkit.archive.signature import Signature, Tensor
from tests.archive.models import checked, folder, sklearn_bytes, xgboost_bytes
from tests.archive.support import noise
from tests.support.server import COMMAND, until
from tests.support.terminal import drawn

MODEL: dict[str, bytes | str] = {"model.ubj": xgboost_bytes()}
ROW = "31,40000,3,180\n"


@dataclass(frozen=True)
class Done:
    """What a command said."""

    returncode: int
    stdout: str
    stderr: str


def pack(*arguments: str | Path, cwd: Path | None = None) -> Done:
    """Run the command in this process, as there are many tests; one runs the installed command."""
    old = os.getcwd()
    os.chdir(cwd or old)
    try:
        done = CliRunner().invoke(main, ["archive", "pack", *map(str, arguments)], prog_name="mmekit")
    finally:
        os.chdir(old)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def packed(*arguments: str | Path, cwd: Path) -> Path:
    """The archive that the command wrote."""
    done = pack(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / done.stdout.strip()


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


# --- what is in it


def test_files_lie_at_the_root_and_the_name_is_the_folders_with_the_contents_hash(tmp_path: Path) -> None:
    folder(tmp_path / "churn", {**MODEL, "MAR-INF/note.txt": "x"})
    archive = packed("churn", "--output", "models", cwd=tmp_path)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert archive.name == f"churn-{digest[:12]}.tar.gz"
    assert contents(archive) == {"MAR-INF/note.txt": b"x", "model.ubj": MODEL["model.ubj"]}
    assert checked(archive).findings == []


def test_the_installed_command_packs_what_the_command_packs_here(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    command = [COMMAND, "archive", "pack", "churn"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pack("churn", cwd=tmp_path).stdout == done.stdout


def test_the_path_alone_is_printed_and_what_was_left_out_is_told(tmp_path: Path) -> None:
    junk = {".DS_Store": "x", "__MACOSX/a": "x", "._model.ubj": "x", "code/__pycache__/a.pyc": "x"}
    folder(tmp_path / "churn", {**MODEL, **junk, ".git/config": "x", ".ipynb_checkpoints/a": "x"})
    done = pack("churn", cwd=tmp_path)
    assert re.fullmatch(r"churn-[0-9a-f]{12}\.tar\.gz\n", done.stdout)
    assert "Left out: " in done.stderr
    assert list(contents(tmp_path / done.stdout.strip())) == ["model.ubj"]


def test_an_archive_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    archive = packed("churn", cwd=tmp_path)
    before = archive.stat()
    done = pack("churn", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, archive.name)
    assert "is there already, with the same content" in done.stderr
    assert archive.stat().st_mtime_ns == before.st_mtime_ns
    assert sorted(os.listdir(tmp_path)) == sorted(["churn", archive.name])


def test_what_links_lead_to_is_packed_and_what_lies_outside_is_told(tmp_path: Path) -> None:
    folder(tmp_path / "blobs", {"a": MODEL["model.ubj"], "more/b.txt": "b"})
    path = folder(tmp_path / "churn", {"code/inference.py": "def model_fn(model_dir): ...\n"})
    (path / "model.ubj").symlink_to("../blobs/a")
    (path / "data").symlink_to("../blobs/more")
    (path / "again.ubj").hardlink_to(tmp_path / "blobs/a")
    done = pack("churn", cwd=tmp_path)
    assert "Packed from outside of the folder, by links: data/b.txt, model.ubj." in done.stderr
    archive = tmp_path / done.stdout.strip()
    assert list(contents(archive)) == ["again.ubj", "code/inference.py", "data/b.txt", "model.ubj"]
    with tarfile.open(archive) as opened:
        assert all(member.isreg() for member in opened)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: (path / "dead").symlink_to("nowhere"), "where nothing is"),
        (lambda path: (path / "loop").symlink_to("."), "links must form no circle"),
        (lambda path: os.mkfifo(path / "pipe"), "neither a file nor a folder"),
        (lambda path: (path / "back\\slash").write_text("x"), "backslash"),
        (lambda path: Path(os.fsdecode(os.fsencode(path) + b"/\xff")).write_text("x"), "not UTF-8"),
    ],
    ids=["dead link", "circle", "pipe", "backslash", "bytes"],
)
def test_what_no_archive_can_have_is_refused_and_nothing_is_written(
    tmp_path: Path, make: object, why: str
) -> None:
    make(folder(tmp_path / "churn", MODEL))  # type: ignore[operator]
    done = pack("churn", "--allow-faults", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert why in done.stderr
    assert os.listdir(tmp_path) == ["churn"]


def test_faults_keep_the_archive_from_being_written_unless_they_are_allowed(tmp_path: Path) -> None:
    folder(tmp_path / "churn", {"churn/model.ubj": MODEL["model.ubj"]})
    done = pack("churn", cwd=tmp_path)
    assert done.returncode == 3
    assert "fault: The model folder churn holds only the folder 'churn'" in done.stderr
    assert os.listdir(tmp_path) == ["churn"]
    assert pack("churn", "--allow-faults", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["-x", "a/b", "a b", "ä", "x" * 101, ""])
def test_a_name_that_would_hurt_later_is_refused(tmp_path: Path, name: str) -> None:
    folder(tmp_path / "churn", MODEL)
    done = pack("churn", f"--name={name}", cwd=tmp_path)
    assert done.returncode == (1 if name else 0)
    assert ("cannot be used" in done.stderr) == bool(name)


def test_an_output_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    (tmp_path / "file").write_text("x")
    done = pack("churn", "--output", "file/below", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be written to" in done.stderr


def test_json_has_path_hash_and_the_checks_report(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    document = json.loads(pack("churn", "--json", cwd=tmp_path).stdout)
    assert document["sha256"] == hashlib.sha256((tmp_path / document["path"]).read_bytes()).hexdigest()
    assert document["written"] is True
    assert document["report"]["loads"]["framework"] == "XGBoost"


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_none_of_it_is_the_result(tmp_path: Path) -> None:
    folder(tmp_path / "churn", {**MODEL, "weights.csv": noise(3_000_000)})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "archive", "pack", "churn"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=tmp_path,
        text=True,
        env={**os.environ, "TERM": "xterm"},  # CI's own may be "dumb", which has no bars
    )
    os.close(theirs)
    shown = drawn(ours)
    out, _ = process.communicate(timeout=60)
    assert re.fullmatch(r"churn-[0-9a-f]{12}\.tar\.gz\n", out)
    assert "packing churn" in shown


def test_ctrl_c_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    folder(tmp_path / "churn", {**MODEL, "weights.csv": noise(60_000_000)})
    process = subprocess.Popen(
        [COMMAND, "archive", "pack", "churn"], stderr=subprocess.PIPE, cwd=tmp_path, text=True
    )
    until(lambda: list(tmp_path.glob(".churn.*.part")), what="a file that is written")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("interrupted; nothing was written.\n")
    assert os.listdir(tmp_path) == ["churn"]


# --- the same bytes


_FILES = st.dictionaries(
    st.lists(st.text("abB_é.-", min_size=1, max_size=4), min_size=1, max_size=3)
    .filter(lambda parts: all(part.strip(".") and not part.startswith("._") for part in parts))
    .map("/".join),
    st.tuples(st.binary(max_size=300), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(files=_FILES, data=st.data())
@settings(max_examples=40)
def test_the_same_files_give_the_same_bytes_whatever_else_differs(
    files: dict[str, tuple[bytes, bool]], data: st.DataObject
) -> None:
    digests = set()
    for umask, reverse, time in ((0o022, False, 1_000_000_000), (0o077, True, 1_700_000_000)):
        with tempfile.TemporaryDirectory() as here:
            old = os.umask(umask)
            try:
                for name, (content, executable) in sorted(files.items(), reverse=reverse):
                    file = Path(here, "m", name)
                    if any(above.is_file() for above in file.parents) or file.exists():
                        return
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                    file.chmod(file.stat().st_mode | (0o100 if executable else 0))
                    os.utime(file, (time, time))
            finally:
                os.umask(old)
            written = bundle.write(bundle.collect(Path(here, "m"), "m"), Path(here, "out"))
            digests.add(written.sha256)
            with tarfile.open(written.path) as archive:
                members = archive.getmembers()
            assert {member.name for member in members} == set(files)
            assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 315532800)}
            assert {member.mode for member in members} <= {0o644, 0o755}
            head = written.path.read_bytes()[:10]
            assert head == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", "no date, no name, no system"
    assert len(digests) == 1


def test_a_change_of_content_name_or_permission_changes_the_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", {"a": "x", "run.sh": "x"})

    def name() -> str:
        return bundle.write(bundle.collect(path, "m"), tmp_path / "out").path.name

    names = {name()}
    (path / "a").write_text("y")
    names.add(name())
    (path / "a").rename(path / "b")
    names.add(name())
    (path / "run.sh").chmod(0o755)
    names.add(name())
    assert len(names) == 4


# --- sample and warm-up


def test_a_sample_is_kept_and_warms_up_where_that_is_asked_for(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    (tmp_path / "payload.csv").write_text(ROW)
    found = contents(packed("churn", "--sample-request", "payload.csv", cwd=tmp_path))
    assert found["MAR-INF/sample-request"].decode() == ROW
    assert json.loads(found["MAR-INF/sample-request.json"]) == {"contentType": "text/csv"}
    more = ("--warm-up", "--accept", "text/csv", "--content-type", "text/csv; header=absent")
    archive = packed("churn", "--sample-request", "payload.csv", *more, cwd=tmp_path)
    assert json.loads(contents(archive)["MAR-INF/sample-request.json"]) == {
        "contentType": "text/csv; header=absent",
        "accept": "text/csv",
        "warmUp": 1,
    }
    report = checked(archive)
    assert report.sample_request
    assert (report.sample_request.warm_up, report.findings) == (1, [])


def test_a_sample_that_does_not_fit_the_model_is_a_fault(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    (tmp_path / "payload.csv").write_text("1,2,3\n")
    done = pack("churn", "--sample-request", "payload.csv", cwd=tmp_path)
    assert done.returncode == 3
    assert "has rows with 3 columns; the model takes 4" in done.stderr


@pytest.mark.parametrize(
    ("name", "body", "fits"),
    [
        ("a.json", '{"instances": [[1, 2, 3, 4]]}', True),
        ("a.json", "[[1, 2, 3]]", False),
        ("a.json", "[1, 2, 3, 4]", True),
        ("a.jsonl", "[1, 2, 3, 4]\n[1, 2, 3, 4, 5]\n", False),
        ("a.jsonl", '{"features": [1, 2, 3, 4]}\n', True),
        ("a.csv", '"a, b",2,3,4\n', True),
        ("a.json", "no json", True),
    ],
)
def test_columns_of_a_sample_are_counted_by_its_type(
    tmp_path: Path, name: str, body: str, fits: bool
) -> None:
    folder(tmp_path / "churn", {"model.pkl": sklearn_bytes()})
    (tmp_path / name).write_text(body)
    done = pack("churn", "--sample-request", name, cwd=tmp_path)
    assert done.returncode == (0 if fits else 3), done.stderr


def test_a_warm_up_needs_a_sample_which_may_be_the_folders_own(tmp_path: Path) -> None:
    path = folder(tmp_path / "churn", MODEL)
    done = pack("churn", "--warm-up", cwd=tmp_path)
    assert done.returncode == 2
    assert "give --sample-request" in done.stderr
    folder(
        path, {"MAR-INF/sample-request": ROW, "MAR-INF/sample-request.json": '{"contentType": "text/csv"}'}
    )
    found = contents(packed("churn", "--warm-up", cwd=tmp_path))
    assert json.loads(found["MAR-INF/sample-request.json"]) == {"contentType": "text/csv", "warmUp": 1}


def test_a_content_type_that_nobody_can_guess_must_be_given(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    (tmp_path / "payload").write_text(ROW)
    done = pack("churn", "--sample-request", "payload", cwd=tmp_path)
    assert done.returncode == 1
    assert "give --content-type" in done.stderr
    assert (
        pack("churn", "--sample-request", "payload", "--content-type", "text/csv", cwd=tmp_path).returncode
        == 0
    )


# --- signature


def test_a_signature_is_taken_from_the_models_own_file(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    found = contents(packed("churn", "--signature", "auto", cwd=tmp_path))
    signature = json.loads(found["MAR-INF/signature.json"])
    assert signature["inputs"] == [
        {"data_name": "features", "data_shape": [0, 4], "columns": ["age", "income", "visits", "größe"]}
    ]
    assert signature["outputs"] == [{"data_name": "prediction", "data_shape": [0]}]


def test_a_signature_of_mms_is_taken_as_it_is(tmp_path: Path) -> None:
    folder(tmp_path / "churn", {**MODEL, "code/inference.py": "def model_fn(model_dir): ...\n"})
    document = {
        "inputs": [{"data_name": "data", "data_shape": [0, 3, 224, 224]}],
        "input_type": "image/jpeg",
        "outputs": [{"data_name": "softmax", "data_shape": [0, 1000]}],
        "output_type": "application/json",
    }
    (tmp_path / "signature.json").write_text(json.dumps(document))
    archive = packed("churn", "--signature", "signature.json", cwd=tmp_path)
    assert json.loads(contents(archive)["MAR-INF/signature.json"]) == document
    assert checked(archive).signature == Signature(
        [Tensor("data", [0, 3, 224, 224])], [Tensor("softmax", [0, 1000])], "image/jpeg", "application/json"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be used"),
        ('{"inputs": [{"data_shape": [1]}]}', "data_name"),
        ('{"inputs": [{"data_name": "x", "data_shape": [-1]}]}', "negative length"),
        ('{"inputs": [{"data_name": "x", "data_shape": [0, 2], "columns": ["a"]}]}', "names 1 columns"),
        ('{"input": []}', "input"),
    ],
)
def test_a_signature_that_cannot_be_used_is_refused(tmp_path: Path, text: str, why: str) -> None:
    folder(tmp_path / "churn", MODEL)
    (tmp_path / "signature.json").write_text(text)
    done = pack("churn", "--signature", "signature.json", cwd=tmp_path)
    assert done.returncode == 1
    assert why in done.stderr
    assert "MMS 0.4" in done.stderr


def test_a_signature_that_contradicts_the_model_is_a_fault(tmp_path: Path) -> None:
    folder(tmp_path / "churn", MODEL)
    text = '{"inputs": [{"data_name": "x", "data_shape": [0, 5]}]}'
    (tmp_path / "signature.json").write_text(text)
    done = pack("churn", "--signature", "signature.json", cwd=tmp_path)
    assert done.returncode == 3
    assert "the signature has 5 columns, the model itself 4" in done.stderr


def test_a_model_that_does_not_say_what_it_takes_needs_a_file(tmp_path: Path) -> None:
    folder(tmp_path / "churn", {"code/inference.py": "def model_fn(model_dir): ...\n"})
    done = pack("churn", "--signature", "auto", cwd=tmp_path)
    assert done.returncode == 1
    assert "do not say what the model takes" in done.stderr


# --- the two forms


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Missing argument 'DIR'"),
        (["churn", "--model-name", "x"], "do not go together"),
        (["churn", "--force"], "DIR and --force do not go together"),
        (["--model-name", "x"], "Missing option '--model-path'"),
        (
            ["--model-name", "x", "--model-path", "churn", "--handler", "x:y", "--warm-up"],
            "--warm-up is for `mmekit archive pack DIR`",
        ),
        (["gone"], "does not exist"),
    ],
)
def test_the_two_forms_do_not_mix(tmp_path: Path, arguments: list[str], why: str) -> None:
    folder(tmp_path / "churn", MODEL)
    done = pack(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert why in done.stderr


def test_the_help_shows_the_forms_apart() -> None:
    text = pack("--help").stdout
    sagemaker, _, rest = text.partition("In place of model-archiver")
    assert "--sample-request" in sagemaker
    assert "--model-name" in rest
    assert "--sample-request" not in rest.partition("Examples:")[0]


def test_what_is_there_under_the_name_and_is_another_thing_is_replaced(tmp_path: Path) -> None:
    model = folder(tmp_path / "m", MODEL)
    archive = packed(model, cwd=tmp_path)
    content = archive.read_bytes()
    archive.write_bytes(content[:-100])  # as a full disk leaves it
    assert packed(model, cwd=tmp_path).read_bytes() == content


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_names_do_not_depend_on_the_locale(tmp_path: Path, locale: str) -> None:
    model = folder(tmp_path / "m", {**MODEL, "größe/日本.txt": "x"})
    expected = packed(model, cwd=tmp_path)
    environ = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([COMMAND, "archive", "pack", model], cwd=tmp_path, env=environ, capture_output=True)
    assert done.stdout.decode().strip() == expected.name, done.stderr
