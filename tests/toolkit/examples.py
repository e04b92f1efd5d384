"""The examples that the commands' help texts and docs/deploy.md give, as people would copy them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from mmekit.cli import main

#: They are the container's and the local endpoint's; each has its own tests.
OTHERS = {"serve", "settings", "local"}

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy.md"

_EXAMPLE = re.compile(r"^ *(mmekit .+)$", re.MULTILINE)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield the toolkit's commands by their names, ``models add`` among them."""
    context = click.Context(main)
    for name in main.list_commands(context):
        if name not in OTHERS:
            command = main.get_command(context, name)
            assert command
            yield from _below(name, command)


def _below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            yield from _below(f"{name} {inner}", each)
    else:
        yield name, command


def examples(command: click.Command) -> list[str]:
    """Return the command lines of a command's examples."""
    return _EXAMPLE.findall(command.epilog or "")


def shell_lines() -> list[str]:
    """Return the command lines of docs/deploy.md, continued ones joined, without comments."""
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", DEPLOY.read_text(), re.MULTILINE | re.DOTALL))
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in text.replace("\\\n", " ").splitlines())
    return [" ".join(line.split()) for line in lines if line]


def walked(name: str) -> list[str]:
    """Return the lines of docs/deploy.md that run a command, ``mmekit models add …`` for ``models add``."""
    return [line for line in shell_lines() if f"{line} ".startswith(f"mmekit {name} ")]
