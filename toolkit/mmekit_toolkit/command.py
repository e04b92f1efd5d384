"""The border of every command: errors become one sentence and an exit code, never a stack trace."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import click

from mmekit.errors import MmekitError
from mmekit_toolkit.errors import EXIT_BUG, EXIT_FAILED, EXIT_INTERRUPTED, ToolkitError

#: Packages that the base install lacks → the extra that brings them.
_EXTRAS = {"boto3": "deploy", "botocore": "deploy", "docker": "deploy", "yaml": "deploy"}


class Command(click.Command):
    """A command with ``--debug``, whose errors end the process with a sentence and a documented code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: click's own signature
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--debug"], is_flag=True, expose_value=False, callback=_remember, help="Show stack traces."
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        with _border(ctx):
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def _remember(ctx: click.Context, _: click.Parameter, debug: bool) -> None:
    ctx.meta["mmekit.debug"] = debug


@contextlib.contextmanager
def _border(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except MmekitError as error:
        _leave(ctx, error.message, error.exit_code if isinstance(error, ToolkitError) else EXIT_FAILED)
    except KeyboardInterrupt as error:
        # Who was creating things has said so in the exception.
        _leave(ctx, str(error) or "interrupted.", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has left, as `| head` does
        sys.exit(EXIT_FAILED)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            _bug(ctx, error)
        _leave(
            ctx,
            f"the package {package} is missing; this command needs more than the base install: "
            f"pip install 'mmekit[{_EXTRAS[package]}]'.",
            EXIT_FAILED,
        )
    except Exception as error:  # noqa: BLE001  # the process's border: what was not foreseen is explained, too
        if explanation := _explained(error):
            _leave(ctx, explanation.message, explanation.exit_code)
        _bug(ctx, error)


def _explained(error: Exception) -> ToolkitError | None:
    """Return what an AWS client's or the engine's error means, None for any other error."""
    explainers: list[Callable[[Exception], ToolkitError | None]] = []
    if "botocore" in sys.modules:
        from mmekit_toolkit.aws import explanations as aws

        explainers.append(aws.explain)
    if "docker" in sys.modules:
        from mmekit_toolkit.images import explanations as images

        explainers.append(images.explain)
    for explain in explainers:
        if found := explain(error):
            return found
    return None


def _bug(ctx: click.Context, error: Exception) -> None:
    _leave(
        ctx,
        f"unexpected {type(error).__name__}: {error}. This is a fault of mmekit; --debug shows where.",
        EXIT_BUG,
    )


def _leave(ctx: click.Context, message: str, code: int) -> None:
    if ctx.meta.get("mmekit.debug"):
        traceback.print_exc()
    click.echo(f"{ctx.command_path}: {message}", err=True)
    ctx.exit(code)
