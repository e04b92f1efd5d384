"""The command ``mmekit``; its options for ``serve`` are made from the declarations in ``config``."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from mmekit import __version__
from mmekit.config import Config, setting_of, settings_markdown
from mmekit.errors import ConfigError, MmekitError

#: Exit code for a setting or option that cannot be used (sysexits.h: EX_CONFIG).
EXIT_CONFIG = 78
#: Exit code when the server cannot start or its one model cannot be loaded.
EXIT_FAILED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmekit")
def main() -> None:
    """Host many models in one container, on SageMaker multi-model endpoints or anywhere else."""


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each server setting; its help names the variable that sets the same."""
    for field in reversed(dataclasses.fields(Config)):
        setting = setting_of(field.name)
        if setting.read_by == "server":
            name = "--" + field.name.replace("_", "-")
            text = f"{setting.meaning} [{setting.names[0]}; {setting.unit}]".replace("`", "")
            command = click.option(name, field.name, metavar="VALUE", help=text)(command)
    return command


@main.command(epilog="Example: SAGEMAKER_MULTI_MODEL=true mmekit serve --port 8080")
@_setting_options
def serve(**options: str | None) -> None:
    """Serve models over HTTP until SIGTERM.

    With SAGEMAKER_MULTI_MODEL=true it starts empty and models are loaded with POST /models; without,
    it serves the one model in /opt/ml/model on /invocations. An option wins over its variable.
    """
    # As process 1 a signal without a handler is lost, so they come before the slow imports.
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    from mmekit import logs
    from mmekit.server import app

    config = _config({name: value for name, value in options.items() if value is not None})
    logs.set_up(config.log_level)
    try:
        sys.exit(app.serve(config, os.environ, received))
    except OSError as error:
        _leave(
            f"The server cannot listen on {config.host}:{config.port}: {error.strerror or error}.",
            EXIT_FAILED,
        )
    except ConfigError as error:
        _leave(error.message, EXIT_CONFIG)
    except MmekitError as error:
        _leave(error.message, EXIT_FAILED)


@main.command(epilog="Example: mmekit settings --markdown > docs/settings.md")
@click.option("--markdown", is_flag=True, help="Print docs/settings.md instead.")
def settings(markdown: bool) -> None:
    """Show every setting with the value it has in this environment."""
    if markdown:
        click.echo(settings_markdown(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    config = _config({})
    table = Table("setting", "value", "unit", "variable")
    for field in dataclasses.fields(config):
        setting = setting_of(field.name)
        value = getattr(config, field.name)
        table.add_row(field.name, _shown(value, setting.default_text), setting.unit, ", ".join(setting.names))
    Console().print(table)


def _shown(value: object, default_text: str | None) -> str:
    if value is None:
        return default_text or "not set"
    return str(value)


def _config(overrides: dict[str, str]) -> Config:
    try:
        return Config.from_environ(os.environ, overrides)
    except ConfigError as error:
        _leave(error.message, EXIT_CONFIG)


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"mmekit: {message}", err=True)
    sys.exit(code)
