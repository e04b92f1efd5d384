"""``mmekit archive check``: what would be loaded, by what, and everything that is wrong with an archive."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from mmekit_toolkit.archive import own_code
from mmekit_toolkit.archive.findings import Level
from mmekit_toolkit.archive.report import Report
from tests.archive.models import (
    NAMES,
    checked,
    faults,
    folder,
    sklearn_bytes,
    tar_gz,
    text_of,
    told,
    xgboost_bytes,
)
from tests.archive.support import noise, tar_info, zip_bytes
from tests.support.server import COMMAND

MODEL = {"model.ubj": xgboost_bytes()}


def run(*arguments: str | Path, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "archive", "check", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=cwd, env={**os.environ, **environ}
    )


# --- what would be loaded


def test_an_honest_archive_has_no_faults_and_says_what_loads_it(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", MODEL))
    assert report.findings == []
    assert report.form == "tar.gz"
    assert report.loads
    assert report.loads.handler == "mmekit_handlers.xgboost:XGBoostHandler"
    (model,) = report.models
    assert (model.form, model.columns, model.column_names) == ("XGBoost UBJSON", 4, NAMES)
    assert report.sizes.unpacked_bytes == len(MODEL["model.ubj"])
    assert report.sizes.memory_bytes == 8 * 1024 * 1024 + 2 * len(MODEL["model.ubj"])


def test_a_folder_and_its_archive_are_told_the_same_of(tmp_path: Path) -> None:
    files = {"model.pkl": sklearn_bytes(), "requirements.txt": "numpy\n"}
    of_folder = checked(folder(tmp_path / "m", files))
    of_archive = checked(tar_gz(tmp_path / "m.tar.gz", files))
    assert of_folder.loads == of_archive.loads
    assert of_folder.models == of_archive.models
    assert of_folder.findings == of_archive.findings == []


def test_own_code_is_told_with_what_it_defines_and_what_it_leaves_to_the_built_in_handler(
    tmp_path: Path,
) -> None:
    code = "import json\nfrom helper import x\n\ndef input_fn(data, content_type): ...\n"
    files = {**MODEL, "code/inference.py": code, "code/helper.py": "x = 1\n"}
    report = checked(tar_gz(tmp_path / "m.tar.gz", files))
    assert report.findings == []
    assert report.loads
    assert report.loads.by.startswith("the model's program code/inference.py; what it leaves out")
    assert report.loads.defines == ["input_fn"]
    assert report.loads.code == ["code/helper.py", "code/inference.py"]


def test_a_handler_of_the_manifest_is_told(tmp_path: Path) -> None:
    manifest = {"model": {"modelName": "m", "modelVersion": "3", "handler": "service.py:handle"}}
    files = {"service.py": "def handle(data, context): ...", "MAR-INF/MANIFEST.json": json.dumps(manifest)}
    report = checked(tar_gz(tmp_path / "m.tar.gz", files))
    assert report.loads
    assert report.loads.by == "the handler service.py:handle that the manifest names"
    assert (report.loads.model_name, report.loads.model_version) == ("m", "3")
    assert report.loads.defines == ["handle"]


# --- members


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("/etc/passwd", "path"),
        ("../escape", "path"),
        ("a/../../escape", "path"),
        ("back\\slash", "path"),
        ("C:/windows", "path"),
    ],
)
def test_a_member_that_would_be_written_elsewhere_is_a_fault(tmp_path: Path, name: str, finding: str) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, name: b"x"}))
    assert faults(report) == {finding}
    assert name.replace("\\", "\\\\") in text_of(report, finding) or name in text_of(report, finding)


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_links_and_devices_are_faults(tmp_path: Path, kind: bytes, finding: str) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", MODEL, tar_info("extra", kind)))
    assert faults(report) == {finding}
    assert report.loads, "what can be unpacked is looked at all the same"


def test_everything_is_told_at_once_and_the_worst_first(tmp_path: Path) -> None:
    files = {
        **MODEL,
        "../escape": b"x",
        "._model.ubj": b"x",
        ".DS_Store": b"x",
        "code/__pycache__/x.pyc": b"x",
        "inner.tar.gz": b"x",
        "odd\nname.txt": b"x",
        ".env": b"SECRET=1",
    }
    secret = tar_info("closed.bin", mode=0o600)
    report = checked(tar_gz(tmp_path / "m.tar.gz", files, tar_info("link", tarfile.SYMTYPE), secret))
    wanted = {"path", "link", "junk", "archive-inside", "odd-name", "secret", "permissions"}
    assert wanted <= told(report)
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, key=list(Level).index)
    assert "\n" not in text_of(report, "odd-name")


def test_a_name_that_is_there_twice_is_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", MODEL, tar_info("model.ubj")))
    assert "duplicate" in faults(report)


def test_a_file_and_a_folder_of_one_name_are_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "a": b"x", "a/b": b"x"}))
    assert "duplicate" in faults(report)


def test_an_archive_packed_with_its_folder_is_told_how_to_pack_it(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {"churn/model.ubj": MODEL["model.ubj"], ".DS_Store": b""}))
    assert faults(report) == {"nested-folder"}
    assert "tar -czf model.tar.gz -C churn ." in text_of(report, "nested-folder")
    assert "/tmp" not in text_of(report, "nested-folder")


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "no-archive"),
        (b"no archive", "no-archive"),
        (gzip.compress(b""), "damaged"),
        (gzip.compress(b"text" * 1000), "damaged"),
    ],
)
def test_what_is_no_archive_is_a_fault(tmp_path: Path, content: bytes, finding: str) -> None:
    (tmp_path / "m.tar.gz").write_bytes(content)
    assert finding in faults(checked(tmp_path / "m.tar.gz"))


def test_an_empty_archive_is_a_fault(tmp_path: Path) -> None:
    assert "empty" in faults(checked(tar_gz(tmp_path / "m.tar.gz", {})))


def test_a_damaged_archive_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tar_gz(tmp_path / "m.tar.gz", {**MODEL, "noise.txt": noise(300_000)}, tar_info("late", b"2"))
    path.write_bytes(path.read_bytes()[:-2000])
    report = checked(path)
    assert "damaged" in faults(report)
    assert [model.file for model in report.models] == ["model.ubj"]


@pytest.mark.parametrize("form", ["zip", "mar"])
def test_a_zip_is_for_servers_not_for_sagemaker(tmp_path: Path, form: str) -> None:
    (tmp_path / f"m.{form}").write_bytes(zip_bytes(MODEL.items()))
    report = checked(tmp_path / f"m.{form}")
    assert told(report) == {"not-tar-gz"}
    assert "SageMaker multi-model endpoints take .tar.gz alone" in text_of(report, "not-tar-gz")


def test_a_files_name_that_hides_what_it_is_is_a_remark(tmp_path: Path) -> None:
    tar_gz(tmp_path / "m.zip", MODEL)
    assert told(checked(tmp_path / "m.zip")) == {"name"}


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes(MODEL.items()))
    at = content.rfind(b"PK\1\2")
    content[at + 8] |= 1
    content[content.find(b"PK\3\4") + 6] |= 1
    (tmp_path / "m.mar").write_bytes(content)
    assert faults(checked(tmp_path / "m.mar")) == {"refused"}


# --- sizes


def test_files_larger_than_the_volume_are_a_fault_and_not_unpacked(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "zeros": bytes(5_000_000)}), volume_bytes=10**6)
    assert faults(report) == {"too-large"}
    assert report.models == []
    assert "the volume of 1 MB" in text_of(report, "too-large")


def test_a_volume_that_does_not_take_archive_and_files_together_is_a_warning(tmp_path: Path) -> None:
    files = {**MODEL, "noise.txt": noise(100_000)}
    report = checked(tar_gz(tmp_path / "m.tar.gz", files), volume_bytes=150_000)
    assert told(report, Level.WARNING) == {"volume"}


def test_a_folder_larger_than_the_volume_is_a_fault(tmp_path: Path) -> None:
    report = checked(folder(tmp_path / "m", {**MODEL, "noise.txt": bytes(200_000)}), volume_bytes=10**5)
    assert faults(report) == {"too-large"}


# --- the folder


def test_files_of_several_frameworks_are_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "model.pkl": sklearn_bytes()}))
    assert faults(report) == {"not-loaded"}
    assert "files of several frameworks" in text_of(report, "not-loaded")


def test_several_files_of_one_framework_are_a_fault_where_its_handler_could_not_choose(
    tmp_path: Path,
) -> None:
    files = {"a.pkl": sklearn_bytes(), "b.pkl": sklearn_bytes()}
    report = checked(tar_gz(tmp_path / "m.tar.gz", files))
    assert faults(report) == {"several-models"}
    assert "a.pkl, b.pkl" in text_of(report, "several-models")


def test_a_folder_without_a_model_is_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {"notes.txt": "x"}))
    assert faults(report) == {"not-loaded"}
    assert "Recognised are" in text_of(report, "not-loaded")


def test_a_file_that_xgboost_would_take_for_a_model_is_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "weights.dat": "x" * 100}))
    assert faults(report) == {"not-a-model"}


def test_files_that_nobody_reads_are_a_remark(tmp_path: Path) -> None:
    files = {**MODEL, "train.csv": "1,2", "notes/a.txt": "x", "code/helper.py": "x = 1"}
    report = checked(tar_gz(tmp_path / "m.tar.gz", files))
    assert faults(report) == set()
    for name in ("train.csv", "notes/", "code/"):
        assert name in text_of(report, "unread")


def test_an_empty_model_file_and_one_of_git_lfs_are_faults(tmp_path: Path) -> None:
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n"):
        assert "not-a-model" in faults(checked(tar_gz(tmp_path / "m.tar.gz", {"model.ubj": content})))


def test_a_manifest_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "MAR-INF/MANIFEST.json": "{"}))
    assert faults(report) == {"not-loaded"}


def test_code_that_python_cannot_read_is_a_fault_with_its_line(tmp_path: Path) -> None:
    files = {**MODEL, "code/inference.py": "def model_fn(model_dir):\n    return (\n"}
    report = checked(tar_gz(tmp_path / "m.tar.gz", files))
    assert faults(report) == {"syntax"}
    assert "code/inference.py:2" in text_of(report, "syntax")


def test_code_that_imports_what_is_not_there_is_told_with_the_file(tmp_path: Path) -> None:
    code = "import no_such_module\ntry:\n    import not_this_one\nexcept ImportError:\n    pass\n"
    code += "def model_fn(model_dir): ...\n"
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "code/inference.py": code}))
    assert told(report) == {"module-missing"}
    assert "no_such_module (code/inference.py)" in text_of(report, "module-missing")
    assert "not_this_one" not in text_of(report, "module-missing")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("numpy>=1\n", ""),
        ("no-such-package\n", "no-such-package is not installed"),
        ("numpy<1\n", "numpy<1 is required"),
    ],
)
def test_requirements_are_compared(tmp_path: Path, text: str, expected: str) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "requirements.txt": text}))
    assert told(report) == ({"requirement"} if expected else set())
    assert expected in text_of(report, "requirement")


def test_requirements_that_cannot_be_read_are_a_fault(tmp_path: Path) -> None:
    report = checked(tar_gz(tmp_path / "m.tar.gz", {**MODEL, "requirements.txt": "a b c\n"}))
    assert faults(report) == {"requirement"}


# --- folders of people's own


def test_links_of_a_folder_are_a_remark_and_dead_ones_a_fault(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", MODEL)
    (path / "alias.txt").symlink_to("model.ubj")
    (path / "dead").symlink_to("nowhere")
    report = checked(path)
    assert [f.level for f in report.findings if f.name == "link"] == [Level.FAULT, Level.REMARK]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", MODEL)
    (path / "model.ubj").chmod(0)
    assert faults(checked(path))


# --- the command


def test_the_command_prints_a_report_and_its_exit_code_counts_faults(tmp_path: Path) -> None:
    tar_gz(tmp_path / "good.tar.gz", MODEL)
    tar_gz(tmp_path / "bad.tar.gz", {"churn/model.ubj": b"x"})
    done = run(tmp_path / "good.tar.gz")
    assert (done.returncode, done.stderr) == (0, "")
    assert "loaded by  the built-in handler for XGBoost" in done.stdout
    assert done.stdout.rstrip().endswith("No faults.")
    done = run(tmp_path / "bad.tar.gz", tmp_path / "good.tar.gz")
    assert done.returncode == 3
    assert done.stderr == "mmekit archive check: 1 fault found.\n"
    assert "fault: " in done.stdout


def test_a_folder_of_archives_stands_for_each_of_them_and_json_is_the_whole_report(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tar_gz(tmp_path / f"{name}.tar.gz", MODEL)
    done = run("--json", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert [report["source"] for report in reports] == ["a.tar.gz", "b.tar.gz"]
    assert set(reports[0]) == set(Report.__struct_fields__)
    assert reports[0]["models"][0]["written_by"].keys() == {"xgboost"}
    assert len(reports[0]["sha256"]) == 64


def test_what_is_not_there_is_said_with_its_own_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path / "gone.tar.gz")
    assert done.returncode == 7
    assert "there is no" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_of_members_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    tar_gz(tmp_path / "m.tar.gz", {**MODEL, "\x1b[31mred\x1b]0;title\x07": b"x", "[bold]": b"x"})
    done = run(tmp_path / "m.tar.gz")
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred" in done.stdout
    assert "[bold]" in done.stdout


def test_names_that_are_no_utf_8_are_told_and_json_is_json(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff.pkl")
    content = b"\x80\x02cno_such_module\nX\n)\x81."
    tar_gz(tmp_path / "m.tar.gz", {**MODEL, odd: content, os.fsdecode(b"code/\xfe.py"): "x = ("})
    for path in (tmp_path / "m.tar.gz", folder(tmp_path / "m", {**MODEL, odd: content})):
        done = run("--json", path)
        assert done.returncode in (0, 3), done.stderr
        (report,) = json.loads(done.stdout)
        assert "\\udcff.pkl" in json.dumps(report["models"]).replace("\\\\", "\\")
        assert run(path).stdout


def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar.gz")
    assert faults(checked(tmp_path / "pipe.tar.gz")) == {"no-archive"}


def test_without_aws_and_docker_nothing_of_them_is_imported(tmp_path: Path) -> None:
    tar_gz(tmp_path / "m.tar.gz", MODEL)
    code = (
        "import sys\nfrom mmekit.cli import main\n"
        f"try:\n    main(['archive', 'check', {str(tmp_path / 'm.tar.gz')!r}])\nexcept SystemExit: pass\n"
        "heavy = {'boto3', 'docker', 'numpy', 'sklearn', 'xgboost', 'torch', 'pandas', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([os.sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            with archive.open(zipfile.ZipInfo(f"zeros-{number}"), "w", force_zip64=True) as member:
                member.write(bytes(1_000_000))
    content = bytearray(out.getvalue())
    (tmp_path / "m.zip").write_bytes(content)
    report = checked(tmp_path / "m.zip", volume_bytes=5_000_000)
    assert "too-large" in faults(report)


def test_code_behind_a_link_counts_as_the_code_that_is_packed(tmp_path: Path) -> None:
    folder(tmp_path / "src", {"inference.py": "def model_fn(path): ...\n", "evil.pkl": b"cos\nsystem\n."})
    model = folder(tmp_path / "m", MODEL)
    (model / "code").symlink_to("../src")
    (tmp_path / "src/loop").symlink_to("..")
    report = checked(model)
    assert report.loads
    assert report.loads.defines == ["model_fn"]
    assert "dangerous" in faults(report)


def test_the_program_is_looked_into_however_much_other_code_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_code, "_MAX_PARSED_BYTES", 1000)
    files = {f"code/generated{number}.py": "x = [" + "1," * 300 + "\n" for number in range(5)}
    report = checked(folder(tmp_path / "m", {**files, "code/inference.py": "def model_fn(path): ...\n"}))
    assert report.loads
    assert report.loads.defines == ["model_fn"]
    assert len([each for each in report.findings if each.name == "syntax"]) == 1
