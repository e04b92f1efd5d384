"""The commands ``multi-model-server`` and ``mxnet-model-server``: MMS's own, served by mmekit.

Options and texts: MMS's ``model_server.py`` and ``arg_parser.py``. Images put both names on PATH;
``python -m mmekit.model_server`` is the same. What they start is a server in MMS mode.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import click

from mmekit import __version__, properties, start
from mmekit.config import Config
from mmekit.errors import ConfigError, MmekitError
from mmekit.resolution import Resolution

#: An argument by which a running server is known. sagemaker-inference looks for the process that has
#: it (``model_server._retrieve_mms_server_process``); Python takes any text after -X.
MARK = "com.amazonaws.ml.mms.ModelServer"

#: The file that MMS looks for in the working directory.
_DEFAULT_FILE = "config.properties"

#: How long after its own deadline a server that was told to stop is waited for, in seconds.
_STOP_GRACE_S = 5.0

#: Where a server in the background says that it listens: the number of an open descriptor.
_READY_FD = "MMEKIT_READY_FD"

_URL = re.compile(r"([^/]+=)?https?://.+", re.IGNORECASE)


@dataclass(frozen=True)
class _Options:
    """What the command line says."""

    mms_config: str | None
    model_store: str | None
    models: tuple[str, ...]
    log_config: str | None


class _Models(click.Command):
    """``--models`` takes all the words that follow it, as argparse's ``nargs="+"`` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_repeated(args)))


def _repeated(args: Sequence[str]) -> Iterator[str]:
    in_models = False
    for index, word in enumerate(args):
        if word.startswith("-"):
            in_models = word == "--models"
            if not in_models:
                yield word
            elif index + 1 == len(args) or args[index + 1].startswith("-"):
                raise click.UsageError("--models expects at least one [NAME=]URL after it.")
        elif in_models:
            yield from ("--models", word)
        else:
            yield word


@click.command(cls=_Models, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--start", "do_start", is_flag=True, help="Start the server (also without this).")
@click.option("--stop", "do_stop", is_flag=True, help="Stop the server.")
@click.option("--mms-config", metavar="FILE", help="config.properties, or `sagemaker` for MMS's own.")
@click.option("--model-store", metavar="DIR", help="Folder that models are loaded from.")
@click.option("--models", metavar="[NAME=]URL ...", multiple=True, help="Models to load at the start; ALL.")
@click.option("--log-config", metavar="FILE", help="Accepted; MMEKIT_LOG_FORMAT sets the form of logs.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground.")
@click.version_option(__version__, prog_name="mmekit")
def main(do_start: bool, do_stop: bool, foreground: bool, **options: object) -> None:
    """Start or stop a model server as Multi Model Server does; it runs in the background."""
    received = start.catch_signals() if foreground else []
    if Path(sys.argv[0]).name == "mxnet-model-server":
        click.echo("Warning: mxnet-model-server is the old name; use multi-model-server.")
    if do_start and do_stop:
        _leave("--start and --stop exclude each other.")
    given = _Options(**options)  # type: ignore[arg-type]  # click's values are of the declared types
    if do_stop:
        _stop(given)
        return
    _leave_if_running()
    try:
        resolution = _resolve(given, os.environ)
        if foreground:
            sys.exit(_foreground(resolution, received))
        sys.exit(_background(sys.argv[1:]))
    except MmekitError as error:
        _leave(error.message)


def _resolve(given: _Options, environ: Mapping[str, str]) -> Resolution:
    """Return the settings. Raises ConfigError, in MMS's words where it has any."""
    default = _DEFAULT_FILE if Path(_DEFAULT_FILE).is_file() else None
    file = properties.locate(environ, given.mms_config or default)
    if given.log_config and not Path(given.log_config).is_file():
        raise ConfigError(f"--log-config file not found: {given.log_config}")
    if given.model_store and not Path(given.model_store).is_dir():
        raise ConfigError(f"--model-store directory not found: {given.model_store}")
    options = {}
    if given.model_store:
        options["model_store"] = given.model_store
    if given.models:
        options["load_models"] = ",".join(given.models)
    resolution = start.configure(environ, options, file, mms_mode=True)
    if resolution.config.model_store is None and (local := _local(given.models)):
        raise ConfigError(f"--model-store is required to load model locally: {', '.join(local)}.")
    if given.log_config:
        told = (
            f"--log-config {given.log_config} has no effect: logs here are not log4j's (MMEKIT_LOG_FORMAT)."
        )
        resolution = replace(resolution, warnings=[*resolution.warnings, told])
    # The commands of this name in an image of the other engine are MMS's own.
    return replace(resolution, config=replace(resolution.config, engine="native"))


def _local(models: Sequence[str]) -> list[str]:
    return [model for model in models if model != "ALL" and not _URL.fullmatch(model)]


# --- running -------------------------------------------------------------------------------------


def _foreground(resolution: Resolution, received: list[int]) -> int:
    if received:
        return 0
    if MARK not in sys._xoptions:
        os.execv(sys.executable, _command(sys.argv[1:]))
    ready = os.environ.pop(_READY_FD, None)
    pid_file = _pid_file()
    if ready is None:
        _note(os.getpid())
    try:
        return start.serve(resolution, received, _announcement(ready))
    finally:
        if _read_pid(pid_file) == os.getpid():
            pid_file.unlink(missing_ok=True)


def _announcement(ready: str | None) -> Callable[[], None]:
    def announce() -> None:
        if ready is not None:
            os.write(int(ready), b"listening")
            os.close(int(ready))

    return announce


def _background(args: Sequence[str]) -> int:
    """Start a server that outlives this command; return 0 when it listens, else how it ended."""
    reading, writing = os.pipe()
    environ = {**os.environ, _READY_FD: str(writing)}
    process = subprocess.Popen(
        _command([*args, "--foreground"]),
        env=environ,
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    _note(process.pid)
    os.close(writing)
    if os.read(reading, 64):
        return 0
    code = process.wait()
    _pid_file().unlink(missing_ok=True)
    return code if code > 0 else 1


def _command(args: Sequence[str]) -> list[str]:
    return [sys.executable, "-X", MARK, "-m", "mmekit.model_server", *args]


# --- the server that runs ------------------------------------------------------------------------


def _pid_file() -> Path:
    folder = os.environ.get("TEMP")
    if folder and not Path(folder).is_dir():
        _leave(f"Invalid temp directory: {folder}, please check TEMP environment variable.")
    return Path(tempfile.gettempdir(), ".model_server.pid")


def _note(pid: int) -> None:
    """Write the pid file; without it the server runs as well, but --stop does not find it."""
    try:
        _pid_file().write_text(str(pid))
    except OSError as error:
        click.echo(f"{_pid_file()} cannot be written ({error.strerror}): --stop will not work.", err=True)


def _read_pid(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _running() -> int | None:
    """Return the process of the server that was started; None when it has ended."""
    pid = _read_pid(_pid_file())
    return pid if pid is not None and _is_server(pid) else None


def _is_server(pid: int) -> bool:
    try:
        return MARK.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _leave_if_running() -> None:
    pid = _running()
    if pid is not None and pid != os.getpid() and _READY_FD not in os.environ:
        _leave("Model server is already running, please use multi-model-server --stop to stop it.")


def _stop(given: _Options) -> None:
    pid, file = _running(), _pid_file()
    if pid is None:
        known = file.exists()
        file.unlink(missing_ok=True)
        click.echo("Model server already stopped." if known else "Model server is not currently running.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _stop_timeout_s(given) + _STOP_GRACE_S
    while _is_server(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _is_server(pid):
        os.kill(pid, signal.SIGKILL)
    file.unlink(missing_ok=True)
    click.echo("Model server stopped.")


def _stop_timeout_s(given: _Options) -> float:
    try:
        return _resolve(given, os.environ).config.stop_timeout_s
    except ConfigError:
        return Config.stop_timeout_s


def _leave(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
