"""`mmekit contract` as people run it, and small servers that it meets."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

COMMAND = Path(sysconfig.get_path("scripts")) / "mmekit"
SERVE = ("--", str(COMMAND), "serve")

#: Variables of the surrounding shell that would change what a server does.
_FOREIGN = ("SAGEMAKER_", "MMEKIT_", "OMP_")


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | more


@dataclass(frozen=True)
class Result:
    """A run that is over; ``folder`` has its reports."""

    code: int
    output: str
    remarks: str
    folder: Path

    @property
    def json(self) -> Any:
        return json.loads((self.folder / "outcomes.json").read_text())

    @property
    def junit(self) -> ElementTree.Element:
        return ElementTree.parse(self.folder / "outcomes.xml").getroot()

    @property
    def verdicts(self) -> dict[str, str]:
        return {clause["name"]: clause["verdict"] for clause in self.json["clauses"]}

    def clause(self, name: str) -> Any:
        (found,) = (clause for clause in self.json["clauses"] if clause["name"] == name)
        return found


def contract(
    folder: Path, *arguments: str, clauses: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> Result:
    """Run `mmekit contract` to its end, with both reports written to the folder."""
    reports = [f"--json={folder / 'outcomes.json'}", f"--junit={folder / 'outcomes.xml'}"]
    chosen = [f"--clause={name}" for name in clauses]
    done = subprocess.run(
        [COMMAND, "contract", *reports, *chosen, *arguments],
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    return Result(done.returncode, done.stdout, done.stderr, folder)


#: An HTTP server that answers /ping, and 404 to whatever its body does not treat: ``path``, ``method``.
_PROGRAM = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        method, path = self.command, self.path
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = (200, b"") if path == "/ping" else (404, b"")
{treatment}
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, *arguments):
        print(self.command, self.path, flush=True)

port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def program(folder: Path, treatment: str = "") -> Path:
    """Write a server that treats some requests as the lines say; they may set ``status`` and ``body``."""
    path = folder / "server.py"
    path.write_text(_PROGRAM.replace("{treatment}", textwrap.indent(textwrap.dedent(treatment), " " * 8)))
    return path
