"""Where boto3, docker and YAML are not installed, help is printed and the rest says what to install."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from mmekit.cli import main

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


def test_the_list_of_commands_is_whole_and_imports_none_of_them() -> None:
    program = (
        "import atexit, sys; from mmekit.cli import main; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", program, "--help"]
    wide = {**os.environ, "COLUMNS": "110"}  # a command is a line
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=wide)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("Commands:\n")[2].splitlines()
    assert {line.split()[0] for line in lines} == set(main.list_commands(click.Context(main)))
    assert not {"mmekit_toolkit", "mmekit_endpoint", "boto3"} & set(done.stderr.split())
