"""The installations that are measured.

mmekit is the one that runs this: a normal install with byte code compiled (`make bench` sees to
that; an editable one imports without it). Multi Model Server brings the top-level name ``mms`` and
so cannot stand beside mmekit: it has an environment of its own, ``make mms``, that reads the same
frameworks. So both servers predict with the same ones.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mmekit

PROGRAMS = Path(__file__).parent / "programs"

_MMS = Path(__file__).parent.parent / "build" / "mms"


@dataclass(frozen=True)
class Installations:
    """The folders with the commands to measure; ``mms`` is None where nothing of it is measured."""

    native: Path
    mms: Path | None


class EnvironmentFailed(Exception):
    """Raised when an installation is not fit to be measured, or could not be made."""


def prepare(with_mms: bool, allow_editable: bool) -> Installations:
    """Check the install that runs this, make that of MMS where it is wanted; raise ``EnvironmentFailed``."""
    if not allow_editable:
        _check_install()
    native = Path(sys.executable).parent
    if not (native / "mmekit").exists():
        raise EnvironmentFailed(f"{native} has no command mmekit; run this with `make bench`.")
    return Installations(native, _mms() if with_mms else None)


def clean_environ() -> dict[str, str]:
    """Return this process's environment without settings that would change a server or Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SAGEMAKER_", "MMEKIT_", "MMS_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_"))
    }


def versions(installations: Installations) -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to the figures."""
    folders = [installations.native, installations.mms]
    found = [_versions(folder / "python") for folder in folders if folder is not None]
    return {name: version for each in reversed(found) for name, version in each.items()}


def _check_install() -> None:
    file = Path(mmekit.__file__)
    if "site-packages" not in file.parts:
        raise EnvironmentFailed(
            f"mmekit is imported from {file.parent}, an editable install; measure a normal one with "
            f"`make bench`, or say --allow-editable."
        )
    if not Path(importlib.util.cache_from_source(str(file))).exists():
        raise EnvironmentFailed(f"{file.parent} has no byte code; run `python -m compileall {file.parent}`.")


def _mms() -> Path:
    if shutil.which("java") is None:
        raise EnvironmentFailed("Multi Model Server needs Java: apt-get install default-jre-headless")
    if not (_MMS / ".installed").exists():
        raise EnvironmentFailed(f"{_MMS} has no Multi Model Server; make it with `make mms`.")
    return _MMS / "bin"


def _versions(python: Path) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, platform;"
        "print('python', platform.python_version());"
        "[print(d.metadata['Name'].lower().replace('_', '-'), d.version) for d in m.distributions()]"
    )
    output = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in output.splitlines())
    names = ("python", "mmekit", "uvloop", "httptools", "numpy", "scikit-learn", "xgboost-cpu", "torch")
    mms = ("multi-model-server", "sagemaker-inference")
    return {name: found[name] for name in (*names, *mms) if name in found}
