"""The border of every command: errors become one sentence and an exit code, never a stack trace."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

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
        _mend_streams()
        with _border(ctx), interrupted_by_signals():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def _remember(ctx: click.Context, _: click.Parameter, debug: bool) -> None:
    ctx.meta["mmekit.debug"] = debug


def _mend_streams() -> None:
    """Let all be printed and asked: some streams are closed, some encodings have few characters."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # the process's own
        elif isinstance(stream, io.TextIOWrapper) and mode == "w":
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Have SIGTERM of CI systems and `timeout`, and SIGHUP of a lost terminal, leave no more than Ctrl-C.

    Where somebody else has decided on one of them, as nohup does, or owns the main thread, it stays so.
    """
    mine = threading.current_thread() is threading.main_thread()
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if mine and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


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
    """Return what an error of the machine, an AWS client or the engine means, None for any other error."""
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
    if isinstance(error, OSError) and error.strerror:
        # The machine's own: a full disk, a folder that is not there or read-only.
        return ToolkitError(f"{error.strerror}{f': {error.filename}' if error.filename else ''}.")
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
