"""The two installations that are measured, made when they are missing or when sources changed.

``.venv``: mmekit as people have it, a normal install with byte code compiled (an editable one
without byte code imports 4 to 5 times slower). ``.venv-mms``: Multi Model Server, which brings
the top-level name ``mms`` and so cannot stand beside mmekit; it reads the frameworks of ``.venv``,
so both servers predict with the same ones.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(__file__).parent / "programs"
NATIVE = Path(__file__).parent / ".venv"
MMS = Path(__file__).parent / ".venv-mms"

#: The last versions.
_MMS_REQUIREMENTS = ("multi-model-server==1.1.11", "sagemaker-inference==1.10.1")

_SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "container", "handlers")


class EnvironmentFailed(Exception):
    """Raised when an installation could not be made; the text is that of the tool."""


def native_python() -> Path:
    """Return the interpreter of an up-to-date normal install of this checkout."""
    needs = _digest([ROOT / "setup.py", ROOT / "constraints.txt"])
    stamp = f"{needs} {_digest(_source_files())}"
    python = NATIVE / "bin" / "python"
    found = _stamp(NATIVE)
    if found == stamp:
        return python
    _make_venv(NATIVE)
    with tempfile.TemporaryDirectory() as folder:
        # A copy: setuptools keeps removed modules in the build/ folder of a source tree.
        source = Path(folder) / "source"
        _copy_sources(source)
        constraints = ["-c", str(ROOT / "constraints.txt")] if (ROOT / "constraints.txt").exists() else []
        if found is None or not found.startswith(needs):
            _run(python, "-m", "pip", "install", "-q", *constraints, f"{source}[all]")
            _compile(NATIVE)
        # The version does not change between commits, so pip would keep the old code. It compiles.
        _run(python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", str(source))
    _write_stamp(NATIVE, stamp)
    return python


def mms_python() -> Path:
    """Return the interpreter that has Multi Model Server; raises where Java is missing."""
    if shutil.which("java") is None:
        raise EnvironmentFailed("Multi Model Server needs Java: apt-get install default-jre-headless")
    stamp = f"{_MMS_REQUIREMENTS} {sys.version}"
    python = MMS / "bin" / "python"
    if _stamp(MMS) == stamp:
        return python
    _make_venv(MMS)
    _run(python, "-m", "pip", "install", "-q", *_MMS_REQUIREMENTS)
    packages = next(MMS.glob("lib/python*/site-packages"))
    shared = next(NATIVE.glob("lib/python*/site-packages"))
    (packages / "frameworks.pth").write_text(f"{shared}\n")
    _compile(MMS)
    _write_stamp(MMS, stamp)
    return python


def clean_environ() -> dict[str, str]:
    """Return this process's environment without settings that would change a server or Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SAGEMAKER_", "MMEKIT_", "MMS_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_"))
    }


def versions(python: Path) -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to the figures."""
    code = (
        "import importlib.metadata as m, platform;"
        "print('python', platform.python_version());"
        "[print(d.metadata['Name'].lower(), d.version) for d in m.distributions()]"
    )
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in output.splitlines())
    names = ("python", "mmekit", "uvloop", "httptools", "numpy", "scikit-learn", "xgboost-cpu", "torch")
    mms = ("multi-model-server", "sagemaker-inference", "sagemaker_inference")
    return {name: found[name] for name in (*names, *mms) if name in found}


def _make_venv(folder: Path) -> None:
    if not (folder / "bin" / "python").exists():
        _run(Path(sys.executable), "-m", "venv", str(folder))


def _source_files() -> list[Path]:
    files = [ROOT / "constraints.txt"]
    for name in _SOURCES:
        path = ROOT / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [path for path in files if path.exists()]


def _copy_sources(target: Path) -> None:
    target.mkdir()
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif source.exists():
            shutil.copy(source, target / name)


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in files:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _compile(venv: Path) -> None:
    # Some packages ship files that are not Python 3; nobody imports those.
    python = venv / "bin" / "python"
    subprocess.run([python, "-m", "compileall", "-q", "-j0", str(venv / "lib")], capture_output=True)


def _stamp(venv: Path) -> str | None:
    path = venv / "bench-stamp"
    return path.read_text() if path.exists() else None


def _write_stamp(venv: Path, stamp: str) -> None:
    (venv / "bench-stamp").write_text(stamp)


def _run(*command: Path | str) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        text = " ".join(str(part) for part in command)
        raise EnvironmentFailed(f"{text} ended with {done.returncode}:\n{done.stderr[-2000:]}")
