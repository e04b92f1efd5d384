"""Runs the installed `mmekit contract` on the stand-in, several at a time, and returns what it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MMEKIT = Path(sysconfig.get_path("scripts")) / "mmekit"
HERE = Path(__file__).parent

#: Seconds until the kit takes a server as it is whose /ping is never 200 after its start.
UNHEALTHY_S = 8

#: A command line that starts the stand-in.
STAND_IN = (sys.executable, "-m", "sabotage", "serve")


def environment(sabotage: str | None = None) -> dict[str, str]:
    """Return the variables with which ``STAND_IN`` runs that sabotage."""
    named = {"SABOTAGE": sabotage} if sabotage else {}
    return {**os.environ, "PYTHONPATH": str(HERE), **named}


@dataclass(frozen=True)
class Report:
    """What a run of the kit came to."""

    exit_code: int
    clauses: list[dict[str, Any]]
    stderr: str

    def named(self, verdict: str) -> list[str]:
        """Return the clauses of that verdict."""
        return [clause["name"] for clause in self.clauses if clause["verdict"] == verdict]

    def reason(self, clause: str) -> str:
        return str(next(found["reason"] for found in self.clauses if found["name"] == clause))

    @property
    def failures(self) -> str:
        """The whole of each failure, for a test that did not expect it."""
        return json.dumps([c for c in self.clauses if c["verdict"] == "failed"], indent=2)


def contract(*arguments: str, sabotage: str | None = None, timeout_s: float = 110) -> Report:
    """Run the kit; fails when it prints no report."""
    done = subprocess.run(
        [MMEKIT, "contract", "--json", "-", *arguments],
        env=environment(sabotage),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.stdout, f"exit code {done.returncode}:\n{done.stderr}"
    return Report(done.returncode, json.loads(done.stdout)["clauses"], done.stderr)


def on_stand_in(sabotage: str | None, clauses: Sequence[str] = ()) -> Report:
    """Run the kit, or some of its clauses, on the stand-in as a command."""
    chosen = [argument for name in clauses for argument in ("--clause", name)]
    start_s = UNHEALTHY_S if sabotage == "unhealthy-without-models" else 30
    return contract("--start-timeout", str(start_s), *chosen, "--", *STAND_IN, sabotage=sabotage)
