"""``mmekit archive pack`` beside the real model-archiver: the same options, the same archives."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit.archive.store import ModelStore
from tests.archive.support import MIB, tree
from tests.support.server import COMMAND

needs_model_archiver = pytest.mark.skipif(
    importlib.util.find_spec("model_archiver") is None, reason="model-archiver is not installed (extra dev)"
)
FORMATS = ("default", "tgz", "no-archive")
SUFFIXES = {"default": ".mar", "tgz": ".tar.gz", "no-archive": ""}


def pack(*options: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "archive", "pack", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


def model_archiver(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_archiver.model_packaging", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def model(folder: Path) -> Path:
    """A folder with what is packed and all that is left out."""
    files = {
        "service.py": "def handle(data, context): ...",
        "data/größe.bin": "x" * 5000,
        "data/empty": "",
        "data/deep/er/labels.txt": "a\nb\n",
        ".hidden_file": "packed",
        "run.sh": "#!/bin/sh",
        "code/inference.py": "",
        # left out
        ".git/config": "x",
        "data/.cache/x": "x",
        "__pycache__/service.cpython-311.pyc": "x",
        "data/__pycache__/x": "x",
        "__MACOSX/x": "x",
        ".DS_Store": "x",
        "x.DS_Store": "x",
        "old.mar": "x",
        "data/cached.pyc": "x",
        "MANIFEST.json": "{}",
        "MAR-INF/MANIFEST.json": "{}",
    }
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (folder / "run.sh").chmod(0o755)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    """Member → content of what either tool wrote."""
    if path.is_dir():
        return tree(path)
    if path.suffix == ".mar":
        with zipfile.ZipFile(path) as opened:
            return {name: opened.read(name) for name in opened.namelist()}
    with tarfile.open(path) as opened_tar:
        found = {}
        for member in opened_tar:
            file = opened_tar.extractfile(member)
            assert file is not None, f"{member.name} is no file"
            found[member.name] = file.read()
        return found


def options(
    folder: Path, export: Path, form: str, *more: str, handler: str = "service.py:handle"
) -> list[str]:
    return [
        "--model-name", "my-model_1.0", "--model-path", str(folder), "--handler", handler,
        "--export-path", str(export), "--archive-format", form, *more,
    ]  # fmt: skip


def both(tmp_path: Path, form: str, *more: str) -> tuple[Path, Path]:
    """What mmekit and what model-archiver write for the same options."""
    made = []
    for tool, name in ((pack, "ours"), (model_archiver, "theirs")):
        export = tmp_path / name
        export.mkdir()
        done = tool(*options(tmp_path / "model", export, form, *more))
        assert done.returncode == 0, done.stderr
        made.append(export / f"my-model_1.0{SUFFIXES[form]}")
        assert list(export.iterdir()) == made[-1:]
    return made[0], made[1]


# --- the same archives


@needs_model_archiver
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("runtime", ["python", "python2", "python3"])
def test_members_and_manifest_are_model_archivers(tmp_path: Path, form: str, runtime: str) -> None:
    model(tmp_path / "model")
    ours, theirs = both(tmp_path, form, "--runtime", runtime)
    assert contents(ours) == contents(theirs)
    manifest = next(name for name in contents(ours) if name.endswith("MANIFEST.json"))
    assert json.loads(contents(ours)[manifest])["runtime"] == runtime


@needs_model_archiver
def test_the_file_types_and_the_way_of_compression_are_model_archivers(tmp_path: Path) -> None:
    model(tmp_path / "model")
    ours, theirs = both(tmp_path, "default")
    kinds = []
    for path in (ours, theirs):
        with zipfile.ZipFile(path) as opened:
            kinds.append(
                {(i.filename, i.compress_type, i.is_dir(), i.create_system) for i in opened.infolist()}
            )
    assert kinds[0] == kinds[1]


_NAMES = st.text("ab._-é ", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))


@needs_model_archiver
@given(paths=st.sets(st.lists(_NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6))
@settings(max_examples=8)
def test_whatever_the_files_are_members_are_model_archivers(paths: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(paths):
            file = Path(folder, "model", path)
            if not any(above.is_file() for above in file.parents) and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(path)
        (Path(folder) / "model/service.py").write_text("")
        ours, theirs = both(Path(folder), "tgz")
        assert contents(ours) == contents(theirs)


@pytest.mark.parametrize("form", FORMATS)
def test_folders_that_links_lead_to_are_packed_and_circles_are_refused(tmp_path: Path, form: str) -> None:
    folder = model(tmp_path / "model")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/weights.bin").write_text("x")
    (folder / "linked").symlink_to("../blobs")
    assert pack(*options(folder, tmp_path, form)).returncode == 0
    names = contents(tmp_path / f"my-model_1.0{SUFFIXES[form]}")
    assert [name for name in names if name.endswith("linked/weights.bin")]
    (folder / "circle").symlink_to("..")
    assert "links must form no circle" in refused(*options(folder, tmp_path, form, "-f"))


def test_a_name_that_is_not_utf_8_is_refused_not_a_traceback(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.bin")).write_text("x")
    text = refused(*options(folder, tmp_path, "default"))
    assert "Names must be UTF-8" in text
    assert not list(tmp_path.glob("*.mar"))


def test_without_an_export_path_the_current_folder_gets_the_archive(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (tmp_path / "here").mkdir()
    done = pack(
        "--model-name", "m", "--model-path", folder, "--handler", "service:handle", cwd=tmp_path / "here"
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "Wrote m.mar.\n"), done.stderr
    assert "service.py" in contents(tmp_path / "here/m.mar")


# --- what is better than model-archiver's


@pytest.mark.parametrize("form", ["default", "tgz"])
def test_the_same_files_give_the_same_bytes(tmp_path: Path, form: str) -> None:
    digests = set()
    for number, name in enumerate(("one", "two")):
        folder = model(tmp_path / name / "model")
        for file in folder.rglob("*"):
            os.utime(file, (number * 1e6, number * 1e6))
        assert pack(*options(folder, tmp_path / name, form)).returncode == 0
        made = tmp_path / name / f"my-model_1.0{SUFFIXES[form]}"
        digests.add(hashlib.sha256(made.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_links_are_packed_as_the_files_they_lead_to(tmp_path: Path, form: str) -> None:
    folder = model(tmp_path / "model")
    (folder / "symbolic").symlink_to("service.py")
    (folder / "hard").hardlink_to(folder / "service.py")
    assert pack(*options(folder, tmp_path, form)).returncode == 0
    found = contents(tmp_path / f"my-model_1.0{SUFFIXES[form]}")
    same = {content for name, content in found.items() if name.endswith(("symbolic", "hard", "service.py"))}
    assert len(same) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_packed_into_the_models_own_folder_does_not_contain_itself(tmp_path: Path, form: str) -> None:
    folder = model(tmp_path / "model")
    for _ in range(2):
        done = pack(*options(folder, folder, form, "--force"))
        assert done.returncode == 0, done.stderr
    found = contents(folder / f"my-model_1.0{SUFFIXES[form]}")
    assert not [name for name in found if name.removeprefix("my-model_1.0/").startswith("my-model_1.0")]


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_packed_is_what_the_server_unpacks(tmp_path: Path, form: str) -> None:
    folder = model(tmp_path / "model")
    assert pack(*options(folder, tmp_path, form)).returncode == 0
    store = ModelStore(tmp_path, False, MIB)
    opened = store.open(f"my-model_1.0{SUFFIXES[form]}")
    found = tree(Path(opened.path))
    assert found["data/größe.bin"] == b"x" * 5000
    assert json.loads(found["MAR-INF/MANIFEST.json"])["model"]["modelName"] == "my-model_1.0"
    assert os.access(Path(opened.path) / "run.sh", os.X_OK)
    store.close()


def test_no_archive_in_place_adds_the_manifest_alone(tmp_path: Path) -> None:
    folder = model(tmp_path / "my-model_1.0")
    before = tree(folder)
    assert pack(*options(folder, tmp_path, "no-archive", "--force")).returncode == 0
    after = tree(folder)
    assert json.loads(after.pop("MAR-INF/MANIFEST.json"))["model"]["handler"] == "service.py:handle"
    before.pop("MAR-INF/MANIFEST.json")
    assert after == before


# --- refusals: exit 1, a sentence, nothing written


def refused(*given: str | Path) -> str:
    done = pack(*given)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("mmekit archive pack: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("name", ["-x", "_x", ".x", "a b", "a/b", "größe", "", "a\nb", "a\n"])
def test_a_model_name_with_special_characters_is_refused(tmp_path: Path, name: str) -> None:
    given = options(model(tmp_path / "model"), tmp_path, "default")
    given[0:2] = [f"--model-name={name}"]
    assert "contains special characters" in refused(*given)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_there_is_overwritten_only_with_force(tmp_path: Path, form: str) -> None:
    folder = model(tmp_path / "model")
    target = tmp_path / f"my-model_1.0{SUFFIXES[form]}"
    assert pack(*options(folder, tmp_path, form)).returncode == 0
    (folder / "new.txt").write_text("new")
    assert f"{target} already exists. --force (-f) overwrites it." in refused(
        *options(folder, tmp_path, form)
    )
    assert not [name for name in contents(target) if name.endswith("new.txt")]
    assert pack(*options(folder, tmp_path, form, "-f")).returncode == 0
    assert [name for name in contents(target) if name.endswith("new.txt")]


@pytest.mark.parametrize("option", ["--model-path", "--export-path"])
def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, option: str) -> None:
    given = options(model(tmp_path / "model"), tmp_path, "default")
    given[given.index(option) + 1] = str(tmp_path / "gone")
    assert f"Given {option[2:]} {tmp_path / 'gone'} is not a directory" in refused(*given)


@pytest.mark.parametrize("handler", ["gone.py:handle", "code/gone.py", "folder/service.py:handle"])
def test_a_handler_file_that_is_not_there_is_refused(tmp_path: Path, handler: str) -> None:
    folder = model(tmp_path / "model")
    text = refused(*options(folder, tmp_path, "default", handler=handler))
    assert f"The handler '{handler}' is not in {folder}" in text
    assert not list(tmp_path.glob("*.mar"))


@pytest.mark.parametrize("handler", ["image_handler:handle", "/opt/handler.py:handle", "package.module"])
def test_a_handler_that_the_image_may_have_is_packed_with_a_word(tmp_path: Path, handler: str) -> None:
    done = pack(*options(model(tmp_path / "model"), tmp_path, "default", handler=handler))
    assert done.returncode == 0
    assert "the image must have it" in done.stderr


@pytest.mark.parametrize(
    "handler", ["service", "service.py", "service:handle", "inference:predict", "code/inference.py"]
)
def test_a_handler_of_the_model_is_packed_without_a_word(tmp_path: Path, handler: str) -> None:
    done = pack(*options(model(tmp_path / "model"), tmp_path, "default", handler=handler))
    assert (done.returncode, done.stderr) == (0, "")


def test_converting_an_onnx_file_is_refused_and_without_one_there_is_nothing_to_convert(
    tmp_path: Path,
) -> None:
    folder = model(tmp_path / "model")
    assert pack(*options(folder, tmp_path, "default", "--convert")).returncode == 0
    (folder / "net.onnx").write_bytes(b"x")
    text = refused(*options(folder, tmp_path, "default", "-c", "-f"))
    assert "--convert is not supported: it needs MXNet to convert net.onnx" in text


def test_a_file_that_cannot_be_read_leaves_no_archive(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "dangling").symlink_to("nowhere")
    text = refused(*options(folder, tmp_path, "default"))
    assert "dangling" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("missing", ["--model-name", "--model-path", "--handler"])
def test_an_option_left_out_is_a_usage_error_as_with_model_archiver(tmp_path: Path, missing: str) -> None:
    given = options(model(tmp_path / "model"), tmp_path, "default")
    at = given.index(missing)
    done = pack(*given[:at], *given[at + 2 :])
    assert done.returncode == 2
    assert missing in done.stderr


# --- without the toolkit, as in the images

_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name == "mmekit_toolkit":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from mmekit.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments", [["archive"], ["archive", "pack", "--model-name", "x"], ["archive", "--help"]]
)
def test_without_the_toolkit_the_command_says_what_to_install(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "images leave it out" in done.stderr
    assert "pip install mmekit" in done.stderr


@pytest.mark.parametrize("start", [[COMMAND], [sys.executable, "-c", _WITHOUT]], ids=["with", "without"])
def test_the_help_lists_archive(start: list[str]) -> None:
    done = subprocess.run([*start, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "archive" in done.stdout


def test_serving_imports_nothing_of_the_toolkit() -> None:
    code = "import sys, mmekit.cli, mmekit.server.app; print([m for m in sys.modules if 'toolkit' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
