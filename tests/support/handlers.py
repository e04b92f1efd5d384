"""Requests to handlers without a server: the worker's own Request and Context, bodies in, answers out."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmekit.worker.context import Context, Request
from mmekit_handlers.base import Handler, Response
from mmekit_handlers.functions import UserFunctions
from mmekit_handlers.transformer import Transformer


def request(
    body: bytes | str = b"",
    content_type: str | None = "text/csv",
    accept: str | None = None,
    attributes: str | None = None,
    **headers: str,
) -> Request:
    named = {
        "Content-Type": content_type,
        "Accept": accept,
        "X-Amzn-SageMaker-Custom-Attributes": attributes,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value is not None]
    return Request(encoded, body.encode() if isinstance(body, str) else body)


def context(of: Request | None = None, model_dir: str = "/models/m") -> Context:
    plain = Context("m", model_dir, None, 1, None)
    return plain.for_requests([of]) if of is not None else plain


def module(source: str, path: Path) -> types.ModuleType:
    """Write a user's inference.py into ``path`` and run it."""
    file = path / "inference.py"
    file.write_text(source)
    made = types.ModuleType("inference")
    made.__file__ = str(file)
    exec(compile(source, str(file), "exec"), made.__dict__)
    return made


def transformer(
    handler: Handler | None,
    model_dir: Path | str,
    source: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Transformer:
    """Load a model as the worker does; ``source`` is the user's inference.py."""
    functions = UserFunctions.of(module(source, Path(model_dir))) if source is not None else None
    return Transformer(
        handler, functions, str(model_dir), lambda of: context(of, str(model_dir)), environ or {}
    )


def ask(model: Transformer, *requests: Request, alone: bool = False) -> Any:
    """Return the answer of one request, or the list for several; what was raised is raised or listed."""
    outcomes = model(list(requests), alone)
    if len(requests) > 1:
        return outcomes
    if isinstance(outcomes[0], Exception):
        raise outcomes[0]
    return outcomes[0]


def body(outcome: Response | Exception) -> bytes:
    assert isinstance(outcome, Response), outcome
    assert isinstance(outcome.body, bytes)
    return outcome.body
