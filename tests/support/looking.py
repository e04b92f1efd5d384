"""Looks into the workers of a running server: models that evaluate expressions, models made on the spot."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.server import IMAGE_CODE, Server, plain_model

#: What own code starts with that answers expressions, as the image's ``evaluate`` does.
EVALUATE = """
import gc, json, os, random, sys, time

kept = []

def model_fn(model_dir):
    return model_dir

def transform_fn(model, input_data, content_type, accept):
    if isinstance(input_data, (bytes, bytearray)):
        input_data = input_data.decode()
    return json.dumps(eval(input_data, globals())), "application/json"
"""


def looking_environ(*folders: Path, **environ: str) -> dict[str, str]:
    """Settings of an image whose handler evaluates expressions; ``folders`` are importable too."""
    return {
        "SAGEMAKER_HANDLER": "evaluate:handle",
        "PYTHONPATH": os.pathsep.join(map(str, (IMAGE_CODE, *folders))),
        **environ,
    }


@contextlib.contextmanager
def looking_server(
    folder: Path, models: list[str], *folders: Path, ready: bool = True, **environ: str
) -> Iterator[Server]:
    """A server with that handler and these models without code loaded."""
    server = Server(**looking_environ(*folders, **environ))
    try:
        server.start(ready)
        for name in models:
            answer = server.load(name, plain_model(folder, name))
            assert answer.status == 200, answer.body
        yield server
    finally:
        server.close()


def look(server: Server, name: str, expression: str) -> Any:
    """Return what an expression is in the worker that holds a model."""
    answer = server.invoke(name, expression)
    assert answer.status == 200, answer.body
    return answer.json


def module(folder: Path, name: str, source: str) -> Path:
    """Write a module, for example one to preload; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return folder


def code_model(folder: Path, name: str, source: str = EVALUATE, **files: str) -> Path:
    """Make a model that brings its own code: ``source`` is its inference.py, ``files`` other modules."""
    code = folder / name / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "inference.py").write_text(textwrap.dedent(source))
    for stem, text in files.items():
        (code / f"{stem}.py").write_text(textwrap.dedent(text))
    return folder / name


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def exists(pid: int) -> bool:
    """Whether a process is there, a zombie included."""
    return Path(f"/proc/{pid}").exists()


__all__ = ["EVALUATE", "alive", "code_model", "exists", "look", "looking_environ", "looking_server", "module"]
