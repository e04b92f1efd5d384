"""Both engines give the same answers for models of the three frameworks."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.engine.support import MmsServer
from tests.support.framework_models import FRAMEWORKS, rows
from tests.support.server import Answer, Server

pytestmark = pytest.mark.mms

Engines = tuple[Server, Server]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    with Server() as native, MmsServer() as mms:
        yield native, mms


def _npy(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def _csv(x: np.ndarray) -> bytes:
    return "\n".join(",".join(map(str, row)) for row in x.tolist()).encode()


X = rows(3, seed=5)

#: Name → body, its type, further headers, the status.
REQUESTS: dict[str, tuple[bytes, str | None, dict[str, str], int]] = {
    "csv": (_csv(X), "text/csv", {}, 200),
    "csv with a charset, asking for csv": (_csv(X), "text/csv; charset=utf-8", {"Accept": "text/csv"}, 200),
    "json": (json.dumps(X.tolist()).encode(), "application/json", {}, 200),
    "json instances": (json.dumps({"instances": X.tolist()}).encode(), "application/json", {}, 200),
    "npy, asking for npy": (_npy(X), "application/x-npy", {"Accept": "application/x-npy"}, 200),
    "a value that is no number": (b"1,2,x,4", "text/csv", {}, 400),
    "json that ends early": (b"[[1, 2", "application/json", {}, 400),
    "a type that no model reads": (b"x", "image/png", {}, 415),
    "a type that no model writes": (_csv(X), "text/csv", {"Accept": "image/png"}, 406),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_answers_the_same_on_both_engines(
    engines: Engines, framework: str, tmp_path: Path
) -> None:
    folder = tmp_path / framework
    FRAMEWORKS[framework](folder)
    for engine in engines:
        loaded = engine.load(framework, folder)
        assert loaded.status == 200, loaded.body
    for name, (body, content_type, headers, status) in REQUESTS.items():
        native, mms = (engine.invoke(framework, body, content_type, **headers) for engine in engines)
        assert mms.status == native.status == status, (name, native.body, mms.body)
        assert _told(mms) == _told(native), name
    for engine in engines:
        assert engine.unload(framework).status == 200


def _told(answer: Answer) -> tuple[str | None, object]:
    """What a client reads: the type, and the body, of an error as JSON."""
    kind = answer.headers.get("content-type")
    return kind, answer.json if answer.status >= 400 else answer.body
