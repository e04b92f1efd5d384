from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.support.terminal import drawn

#: Runs a command as ``mmekit build`` runs docker's; its exit code is 1 for an explained failure.
PROGRAM = """\
import sys
from mmekit.errors import MmekitError
from mmekit_toolkit.images.docker_build import Builder, run
try:
    run(sys.argv[2:], Builder((0, 20)) if sys.argv[1] == "buildx" else Builder())
except MmekitError as error:
    sys.exit(error.message)
"""
ASKS = "[ -t 2 ] && echo a terminal >&2; [ -t 1 ] && echo both >&2; cat; echo $BUILDAH_FORMAT; exit 3"


def on_a_terminal(tmp_path: Path, builder: str) -> str:
    main, side = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, builder, "sh", "-c", ASKS]
    with (tmp_path / "stdout").open("wb") as stdout:
        done = subprocess.run(command, stdin=side, stdout=stdout, stderr=side, timeout=60)
    os.close(side)
    said = drawn(main)
    assert done.returncode == 1
    assert (tmp_path / "stdout").read_bytes() == b"", "stdout is for results"
    return said


def test_buildx_draws_on_the_terminal_itself(tmp_path: Path) -> None:
    said = on_a_terminal(tmp_path, "buildx")
    assert "a terminal\r\nboth\r\ndocker\r\n" in said
    assert "docker build ended with code 3. What it said is above." in said


def test_the_legacy_builder_is_passed_on_and_explained(tmp_path: Path) -> None:
    said = on_a_terminal(tmp_path, "legacy")
    assert "a terminal" not in said
    assert "docker build ended with code 3. Its last line: docker" in said


def test_without_a_terminal_buildx_is_passed_on_and_explained() -> None:
    command = [sys.executable, "-c", PROGRAM, "buildx", "sh", "-c", ASKS]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "docker\ndocker build ended with code 3. Its last line: docker\n"
