"""For all tests: chance and surroundings are the same everywhere, Ctrl-C arrives, missing frameworks skip."""

from __future__ import annotations

import ast
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more of the machine than of the code. `make test` tries the same examples as
# long as the code is the same, `make fuzz` new ones, in CI too.
hypothesis.settings.register_profile(
    "new",
    deadline=None,
    derandomize=False,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("same", hypothesis.settings.get_profile("new"), derandomize=True)
hypothesis.settings.load_profile("same")

#: What a machine's variables begin with that clients of AWS, drawings on a terminal and pytest inside a test
#: heed.
FOREIGN = ("AWS_", "COLUMNS", "FORCE_COLOR", "TTY_", "PY_COLORS", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")

#: Extras of the package and what examples bring. The base install has none of them: on Pythons that are
#: tested without frameworks, files that import one at their top are left out.
FRAMEWORKS = {
    "joblib",
    "lightgbm",
    "numpy",
    "pandas",
    "sagemaker_inference",
    "safetensors",
    "scipy",
    "skops",
    "sklearn",
    "torch",
    "xgboost",
}
MISSING = {name for name in FRAMEWORKS if importlib.util.find_spec(name) is None}

_left_out: list[str] = []


ROOT = Path(__file__).parent.parent


def _imports(path: Path) -> set[str]:
    """Return what a test file imports at its top, itself or by way of other files of the tests."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
            file = ROOT / (node.module.replace(".", "/") + ".py")
            if node.module.startswith("tests.") and file.exists():
                names |= _imports(file)
    return names


def pytest_configure() -> None:
    # nohup, and a shell for what runs in its background, have signals ignored. Commands that the tests
    # interrupt would inherit that; they do not inherit handlers.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # Before the test's fixtures are made: networks draw their first weights.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def surroundings() -> Iterator[None]:
    """No account of this machine, no proxy of it for its own servers, no wish of it for colours."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        # A client without keys would ask the network for those of a machine at EC2.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, f"{others},127.0.0.1,localhost".lstrip(","))
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.match("test_*.py") and MISSING & _imports(collection_path):
        _left_out.append(str(collection_path.relative_to(config.rootpath)))
        return True
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        missing = ", ".join(sorted(MISSING))
        terminalreporter.write_line(f"left out, {missing} not installed: {', '.join(_left_out)}")
