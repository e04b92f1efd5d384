"""The command ``mmekit``; its options for ``serve`` are made from the declarations in ``config``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import click

from mmekit import __version__, properties, start
from mmekit.config import Config
from mmekit.errors import ConfigError, MmekitError
from mmekit.resolution import Resolution
from mmekit.settings import settings_of
from mmekit.settings_table import settings_markdown, values_table

#: Exit code for a setting or option that cannot be used (sysexits.h: EX_CONFIG).
EXIT_CONFIG = 78
#: Exit code when the server cannot start or its one model cannot be loaded.
EXIT_FAILED = 1


class _Outside(NamedTuple):
    """A command that is not the container's: the module that has it, and its line in the list of commands."""

    module: str
    summary: str


_OUTSIDE = {
    "archive": _Outside("mmekit_toolkit.archive.command", "Make model archives, and say what is in them."),
    "build": _Outside("mmekit_toolkit.images.build_command", "Build an image, and check it for SageMaker."),
    "contract": _Outside("mmekit_toolkit.contract.command", "Check a container, clause by clause."),
    "delete": _Outside("mmekit_toolkit.deploy.delete_command", "Delete an endpoint and what belongs to it."),
    "deploy": _Outside(
        "mmekit_toolkit.deploy.deploy_command", "Create an endpoint as its file describes it."
    ),
    "iam": _Outside("mmekit_toolkit.iam.command", "Print the policies that an endpoint needs."),
    "invoke": _Outside("mmekit_toolkit.operate.invoke_command", "Call a model of an endpoint."),
    "local": _Outside("mmekit_endpoint.command", "Run multi-model endpoints on this machine."),
    "logs": _Outside("mmekit_toolkit.operate.logs_command", "Show what an endpoint's containers write."),
    "models": _Outside("mmekit_toolkit.operate.models_command", "Add, list and remove an endpoint's models."),
    "push": _Outside("mmekit_toolkit.images.push_command", "Push an image to ECR."),
    "status": _Outside(
        "mmekit_toolkit.operate.status_command", "Show an endpoint and what is wrong with it."
    ),
    "update": _Outside(
        "mmekit_toolkit.deploy.update_command", "Change an endpoint as its file describes it."
    ),
}
_NOT_HERE = "Not here: images leave it out."


class _Commands(click.Group):
    """Finds commands outside the container when they are asked for; images do not have them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_OUTSIDE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _OUTSIDE:
            return super().get_command(ctx, cmd_name)
        module = _OUTSIDE[cmd_name].module
        if not _is_here(module):
            return _not_here(cmd_name)
        command: click.Command = getattr(importlib.import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing those outside, which takes four times as long."""
        limit = formatter.width - 6 - max(map(len, self.list_commands(ctx)))  # as click's own list has it
        rows = {name: command.get_short_help_str(limit) for name, command in self.commands.items()}
        for name, found in _OUTSIDE.items():
            rows[name] = found.summary if _is_here(found.module) else _NOT_HERE
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ModuleNotFoundError:  # an import hook's way of saying so
        return False


def _not_here(name: str) -> click.Command:
    """Return a command that says what to install, whatever its arguments."""

    def leave(**_: object) -> NoReturn:
        _leave(
            f"`mmekit {name}` is for people's machines; images leave it out. Run it where mmekit was "
            "installed with pip (pip install mmekit).",
            EXIT_FAILED,
        )

    anything = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True}
    return click.Command(name, settings, leave, [anything], help=_NOT_HERE, add_help_option=False)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmekit")
def main() -> None:
    """Host many models in one container, on SageMaker multi-model endpoints or anywhere else."""


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each server setting; its help names the variable that sets the same."""
    for field_name, declared in reversed(settings_of(Config).items()):
        if declared.read_by == "server":
            text = f"{declared.meaning} [{declared.names[0]}; {declared.unit}]".replace("`", "")
            option = click.option(declared.option(field_name), field_name, metavar="VALUE", help=text)
            command = option(command)
    return command


@main.command(epilog="Example: SAGEMAKER_MULTI_MODEL=true mmekit serve --port 8080")
@_setting_options
def serve(**options: str | None) -> None:
    """Serve models over HTTP until SIGTERM.

    With SAGEMAKER_MULTI_MODEL=true it starts empty and models are loaded with POST /models; without,
    it serves the one model in /opt/ml/model on /invocations. An option wins over its variable.
    """
    received = start.catch_signals()
    try:
        sys.exit(start.serve(_resolution(options), received))
    except ConfigError as error:
        _leave(error.message, EXIT_CONFIG)
    except MmekitError as error:
        _leave(error.message, EXIT_FAILED)


@main.command(epilog="Example: mmekit settings --markdown > docs/settings.md")
@click.option("--markdown", is_flag=True, help="Print docs/settings.md instead.")
@click.option("--mms-config", metavar="FILE", help="Take a config.properties of MMS into account.")
def settings(markdown: bool, mms_config: str | None) -> None:
    """Show every setting with the value it has in this environment, and where that comes from."""
    if markdown:
        click.echo(settings_markdown(), nl=False)
        return
    from rich.console import Console

    try:
        resolution = _resolution({"mms_config": mms_config})
    except ConfigError as error:
        _leave(error.message, EXIT_CONFIG)
    Console().print(values_table(resolution))
    for warning in resolution.warnings:
        click.echo(f"mmekit: {warning}", err=True)


def _resolution(options: Mapping[str, str | None]) -> Resolution:
    """Resolve the settings of this process's environment and these options. Raises ConfigError."""
    given = {name: value for name, value in options.items() if value is not None}
    file = properties.locate(os.environ, given.pop("mms_config", None))
    return start.configure(os.environ, given, file)


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"mmekit: {message}", err=True)
    sys.exit(code)
