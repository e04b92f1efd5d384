"""What people install: the wheel, its metadata and its command."""

from __future__ import annotations

import ast
import email
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

import mmekit

ROOT = Path(__file__).parent.parent.parent
ROOTS = {
    "mmekit": ROOT / "container",
    "mmekit_endpoint": ROOT / "endpoint",
    "mmekit_handlers": ROOT / "handlers",
    "mmekit_toolkit": ROOT / "toolkit",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of the sources as they are now, built in a copy: setuptools writes beside setup.py."""
    return _built(_sources(tmp_path_factory.mktemp("source"), ROOTS), tmp_path_factory.mktemp("dist"))


def _sources(source: Path, packages: Iterable[str]) -> Path:
    for name in ("setup.py", "pyproject.toml", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for root in (ROOTS[package] for package in packages):
        shutil.copytree(root, source / root.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return source


def _built(source: Path, out: Path) -> zipfile.ZipFile:
    pytest.importorskip("build.env")  # not `build`, which a folder of that name satisfies
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=out,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def _metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


#: What `pip install mmekit` brings.
BASE = {
    "click",
    "httptools",
    "javaproperties",
    "msgspec",
    "multipart",
    "orjson",
    "packaging",
    "prometheus_client",
    "rich",
    "uvloop",
}


def test_the_wheel_holds_every_source_file_and_the_type_markers(wheel: zipfile.ZipFile) -> None:
    sources = {
        str(path.relative_to(root))
        for package, root in ROOTS.items()
        for path in (root / package).rglob("*.py")
    }
    expected = sources | {f"{package}/py.typed" for package in ROOTS}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert expected == packed


def test_images_are_built_without_the_toolkit(tmp_path: Path) -> None:
    for name in ("source", "dist"):
        (tmp_path / name).mkdir()
    source = _sources(tmp_path / "source", ["mmekit", "mmekit_handlers"])
    names = _built(source, tmp_path / "dist").namelist()
    assert not [name for name in names if "toolkit" in name]
    assert {"mmekit/__init__.py", "mmekit_handlers/__init__.py"} <= set(names)


def test_the_wheel_carries_version_licence_and_supported_pythons(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_string(_metadata(wheel, "METADATA"))
    assert metadata["Name"] == "mmekit"
    assert metadata["Version"] == mmekit.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_declares_the_command_and_the_extras(wheel: zipfile.ZipFile) -> None:
    assert "mmekit = mmekit.cli:main" in _metadata(wheel, "entry_points.txt")
    metadata = email.message_from_string(_metadata(wheel, "METADATA"))
    assert {"xgboost", "sklearn", "pytorch", "all", "dev"} <= set(metadata.get_all("Provides-Extra") or [])


def test_the_base_install_brings_no_framework(wheel: zipfile.ZipFile) -> None:
    requires = email.message_from_string(_metadata(wheel, "METADATA")).get_all("Requires-Dist") or []
    base = {line.split(";")[0].split(">")[0].strip() for line in requires if "extra ==" not in line}
    assert base == BASE


def test_every_declared_requirement_is_imported_and_every_import_declared() -> None:
    """The base install is exactly what the server's modules import."""
    standard = sys.stdlib_module_names
    imported = set()
    for path in (ROOTS["mmekit"] / "mmekit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    outside = {name for name in imported - standard if not name.startswith("mmekit")}
    # Workers prepare these where a model's framework brings them: seeds, numbers of threads.
    outside -= {"numpy", "torch", "threadpoolctl"}
    outside -= {"_typeshed"}  # mypy's own, behind TYPE_CHECKING
    outside -= {"cryptography"}  # the extra tls
    outside -= {"psutil", "retrying", "sagemaker_inference"}  # the second engine: the extra mms
    assert outside == BASE


def _installed_command() -> str:
    try:
        distribution("mmekit")
    except PackageNotFoundError:
        pytest.skip("mmekit is on PYTHONPATH but not installed: `make install`")
    return str(Path(sys.executable).parent / "mmekit")


def test_the_installed_command_names_its_version() -> None:
    done = subprocess.run([_installed_command(), "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert mmekit.__version__ in done.stdout


def test_the_installed_command_offers_serve() -> None:
    done = subprocess.run([_installed_command(), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


#: Imports everything in one fresh process and reports what an import must not do.
_EFFECTS = """
import importlib, logging, os, pkgutil, signal, sys, threading

def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]

def ours():  # scikit-learn sets two of these for OpenMP when it is imported
    return {name: value for name, value in os.environ.items() if not name.startswith("KMP_")}
environ, handlers_before = ours(), handlers()
import mmekit

def hook(event, args):
    # args: path, mode, flags; flags & 3 is how it is opened (0: to read)
    wrong = (
        event == "open" and isinstance(args[2], int) and args[2] & 3
        or event in ("os.mkdir", "os.remove", "os.rename", "subprocess.Popen", "os.fork", "os.posix_spawn",
                     "socket.bind", "socket.connect", "_thread.start_new_thread", "os.putenv")
    )
    if not wrong:  # asking for the frame is an audited event too
        return
    frame = sys._getframe(1)
    while frame:
        name = frame.f_globals.get("__name__", "")
        top = name.split(".")[0]
        if top in ("mmekit", "mmekit_handlers"):
            print("EFFECT", name, event, args)
            return
        if top not in sys.stdlib_module_names and top != "__main__":
            return  # what numpy and others do when they are imported is theirs
        frame = frame.f_back

sys.addaudithook(hook)
for package in PACKAGES:
    for info in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if info.name.startswith("mmekit.engine."):
            continue  # programs of the second engine: processes of their own, which bring AWS's toolkit
        try:
            importlib.import_module(info.name)
        except ImportError as error:
            missing = (error.name or "").split(".")[0]
            if missing in ("", "mmekit", "mmekit_handlers"):
                raise
assert environ == ours(), "an import changed the environment"
assert not logging.getLogger().handlers, "an import set logging up"
assert handlers_before == handlers(), "an import set a signal handler"
print("THREADS", threading.active_count())
print("NUMPY", "numpy" in sys.modules)
"""


def _imported(packages: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"PACKAGES = {packages!r}\n{_EFFECTS}"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_importing_the_server_has_no_effects_and_brings_no_numpy() -> None:
    out = _imported(["mmekit"])
    assert "EFFECT" not in out, out
    assert "THREADS 1" in out
    assert "NUMPY False" in out


def test_importing_the_handlers_has_no_effects() -> None:
    out = _imported(["mmekit_handlers"])
    assert "EFFECT" not in out, out
    assert "THREADS 1" in out
