"""Where boto3, docker and YAML are not installed, help is printed and the rest says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT_EXTRAS = """
import importlib.abc
import sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"boto3", "botocore", "docker", "s3transfer", "yaml"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv[0] = "mmekit"
from mmekit.cli import main
main()
"""


def without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT_EXTRAS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [(), ("models",), ("models", "add"), ("iam", "deployer"), ("status",)])
def test_help_needs_no_extra(arguments: tuple[str, ...]) -> None:
    done = without_extras(*arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments",
    [("models", "list", "churn"), ("status", "churn"), ("logs", "churn"), ("iam", "caller", "churn")],
)
def test_a_command_names_the_extra_that_it_needs(arguments: tuple[str, ...]) -> None:
    done = without_extras(*arguments)
    assert done.returncode == 1
    assert "pip install 'mmekit[deploy]'" in done.stderr
    assert "Traceback" not in done.stderr
