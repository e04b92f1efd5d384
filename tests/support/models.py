"""Loads a model folder in this process, as a worker does when the server tells it to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmekit import artifact, choice
from mmekit.worker import loader
from mmekit.worker.context import Request
from mmekit.worker.messages import Load
from mmekit_handlers.base import Response

#: Tiny models, named by what they do.
MODELS = Path(__file__).parent.parent / "models"


def load_message(
    path: Path | str,
    *,
    handler: str | None = None,
    image: choice.ImageCode | None = None,
    batch_size: int = 1,
    program: str = artifact.DEFAULT_PROGRAM,
) -> Load:
    """Return what the server would send for a folder."""
    found = artifact.inspect(path, program)
    chosen = choice.choose(found, handler, image)
    return Load(
        model=found.path,
        path=found.path,
        handler=chosen.handler,
        program=chosen.program,
        runtime=chosen.runtime,
        code_dirs=list(chosen.code_dirs),
        batch_size=batch_size,
        gpu_id=None,
        grant_bytes=None,
        manifest=found.manifest_text,
    )


@contextmanager
def loaded(message: Load) -> Iterator[loader.LoadedModel]:
    """Load a model and let go of it afterwards."""
    model = loader.load(message, {})
    try:
        yield model
    finally:
        model.close()


def request(body: bytes = b"", **headers: str) -> Request:
    """Return a request; underscores in header names stand for hyphens."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(pairs, body, "id-0")


def ask(model: loader.LoadedModel, body: bytes = b"", **headers: str) -> Response:
    """Return the answer to one request; raises what the model raised."""
    (result,) = model([request(body, **headers)])
    if isinstance(result, BaseException):
        raise result
    return result


def body_of(response: Response) -> bytes:
    """Return the whole body, also of a streamed answer."""
    return response.body if isinstance(response.body, bytes) else b"".join(response.body)
