"""The whole harness once, as small as it goes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy  # noqa: F401 - the models need the frameworks
import pytest

from tests.support.server import until

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_run_measures_checks_answers_and_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    arguments = ["--quick", "--allow-editable", "--suite", "warm", "--server", "inline", "--model", "null"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "run", *arguments, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(out.read_text())
    assert not measured["invalid"]
    rates = [cell for cell in measured["cells"] if cell["metric"] == "throughput"]
    assert [(cell["case"], cell["n"]) for cell in rates] == [("null c1", 1), ("null c32", 1)]
    assert "### One warm model" in done.stdout
    until(lambda: not _processes_of(tmp_path), what="no process being left")  # the killed need a moment


def _processes_of(folder: Path) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder) in _text(path)]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
