"""For all tests: chance is the same in each run, Ctrl-C reaches what they start, missing frameworks skip."""

from __future__ import annotations

import ast
import importlib.util
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says more of the machine than of the code. A test that passed fails only after
# a change: `make test` tries the same examples each time, `make fuzz` new ones.
hypothesis.settings.register_profile(
    "new", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("same", hypothesis.settings.get_profile("new"), derandomize=True)
hypothesis.settings.load_profile("same")

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
    # Networks draw their first weights, before fixtures of the test are made too.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path.match("test_*.py") and MISSING & _imports(collection_path):
        _left_out.append(str(collection_path.relative_to(config.rootpath)))
        return True
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        missing = ", ".join(sorted(MISSING))
        terminalreporter.write_line(f"left out, {missing} not installed: {', '.join(_left_out)}")
