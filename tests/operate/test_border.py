"""The border of every command: streams that are closed or poor, the machine's own errors, SIGTERM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = """
import sys, time
import click
from mmekit_toolkit.command import Command

@click.command(cls=Command)
def it():
    {}

it(prog_name="it")
"""


def command(body: str) -> list[str]:
    return [sys.executable, "-c", _COMMAND.format(body)]


def run(body: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(body),
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_empty_ones(closed: str) -> None:
    body = (
        "sys.stdout.buffer.write(b'1'); click.echo('2', err=True); sys.exit(3 + sys.stdin.isatty() + "
        "sys.stderr.isatty() + len(sys.stdin.read()))"
    )
    script = ["sh", "-c", f'"$@" {closed}', "sh", *command(body)]
    done = subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


def test_what_an_encoding_lacks_is_escaped() -> None:
    done = run("click.echo('cache hits \\u2013')", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert (done.returncode, done.stdout) == (0, "cache hits \\u2013\n"), done.stderr


def test_a_file_name_that_is_no_text_is_printed_all_the_same() -> None:
    done = run("click.echo(b'a\\xff'.decode(errors='surrogateescape'))", PYTHONUTF8="1")
    assert (done.returncode, done.stdout) == (0, "a\\udcff\n"), done.stderr


def test_an_error_of_the_machine_is_no_fault_of_ours(tmp_path: Path) -> None:
    done = run(f"open('{tmp_path}/nowhere/answer', 'wb')")
    assert done.returncode == 1
    assert done.stderr == f"it: No such file or directory: {tmp_path}/nowhere/answer.\n"


def test_a_bug_is_still_called_one() -> None:
    done = run("{}['a']")
    assert done.returncode == 70
    assert "unexpected KeyError: 'a'. This is a fault of mmekit" in done.stderr


def test_sigterm_is_an_interrupt_after_which_all_is_tidied_up() -> None:
    process = subprocess.Popen(
        command("try: click.echo('ready'); time.sleep(60)\n    finally: click.echo('tidied')"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "tidied\n", "it: interrupted.\n")
