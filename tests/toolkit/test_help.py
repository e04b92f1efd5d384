"""What the toolkit's help texts promise; tests/image/test_examples.py runs every example."""

from __future__ import annotations

import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import click
import pytest

from mmekit_toolkit import errors
from tests.toolkit.examples import DEPLOY, commands, examples, shell_lines

COMMANDS = dict(commands())
MMEKIT = Path(sysconfig.get_path("scripts")) / "mmekit"


def test_the_toolkit_has_the_commands_of_its_documentation() -> None:
    assert set(COMMANDS) >= {
        "archive check",
        "archive pack",
        "build",
        "contract",
        "delete",
        "deploy",
        "iam caller",
        "iam deployer",
        "iam execution-role",
        "invoke",
        "logs",
        "models add",
        "models list",
        "models remove",
        "models sync",
        "push",
        "status",
        "update",
    }
    text = DEPLOY.read_text()
    assert not [name for name in COMMANDS if f"mmekit {name}" not in text]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_of_itself(name: str) -> None:
    found = examples(COMMANDS[name])
    assert found
    assert all(line.startswith(f"mmekit {name}") for line in found)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_says_what_it_does(name: str) -> None:
    command = COMMANDS[name]
    assert command.get_short_help_str(200)
    assert not [p.name for p in command.params if isinstance(p, click.Option) and not (p.help or p.hidden)]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_printed_as_it_was_written(name: str) -> None:
    done = subprocess.run(
        [MMEKIT, *shlex.split(name), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"COLUMNS": "110"},
    )
    assert done.returncode == 0, done.stderr
    for line in examples(COMMANDS[name]):
        assert line in done.stdout, "a line of its own, not wrapped into the next"


def test_exit_codes_are_documented() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    documented = {int(code) for code in re.findall(r"^\| `(\d+)` \|", DEPLOY.read_text(), re.MULTILINE)}
    assert documented == codes | {0, 2}


#: Commands of the AWS CLI that are more than one operation, with the options that the document uses.
_CUSTOM = {
    "ecr get-login-password": set(),
    "logs tail": {"since", "filter-pattern"},
    "s3 cp": set(),
    "s3 ls": set(),
    "s3 mb": set(),
    "sagemaker wait": {"endpoint-name"},
}


def test_the_aws_commands_beside_ours_exist_with_their_options() -> None:
    from botocore import xform_name
    from botocore.session import Session

    session = Session()
    found = [words for line in shell_lines() if (words := shlex.split(line.split(" | ")[0]))[0] == "aws"]
    assert len(found) > 15
    for _, service, operation, *rest in found:
        options = {word.removeprefix("--") for word in rest if word.startswith("--")}
        if (allowed := _CUSTOM.get(f"{service} {operation}")) is None:
            model = session.get_service_model(service)
            names = {xform_name(name, "-"): name for name in model.operation_names}
            assert operation in names, f"{service} {operation}"
            shape = model.operation_model(names[operation]).input_shape
            allowed = {xform_name(member, "-") for member in shape.members}
        assert options <= allowed, f"{service} {operation}: {options - allowed}"


def test_the_file_in_the_document_is_that_of_the_example() -> None:
    example = (DEPLOY.parent.parent / "examples" / "deploy" / "endpoint.yaml").read_text()
    fields = "".join(line for line in example.splitlines(keepends=True) if not line.startswith("#"))
    assert f"```yaml\n{fields}```" in DEPLOY.read_text()
