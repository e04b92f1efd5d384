"""Predicts with a model's own sample request before its load is answered, so that its first call is warm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from mmekit.archive.sample import BODY, Sample, read_sample
from mmekit.errors import ModelLoadError, OutOfResources
from mmekit.worker import failures
from mmekit.worker.context import Request
from mmekit.worker.metrics import reported
from mmekit_handlers.base import Response


class Model(Protocol):
    """What a loaded model offers (loader.LoadedModel)."""

    code_dirs: list[str]

    def __call__(
        self, requests: Sequence[Request], alone: bool = False
    ) -> list[Response | BaseException]: ...


def warm_up(model: Model, folder: str) -> None:
    """Predict as often as the model's sample asks for; costs a failed open where there is none.

    Raises ModelLoadError when the model does not answer its own sample: whoever asked for the warm-up
    wants no model that is broken. What says that memory is short is raised as it is, and so is what ends a
    process. Raises InvalidModel for a sample that cannot be used.
    """
    sample = read_sample(folder)
    if sample is None:
        return
    before = len(reported)
    for _ in range(sample.warm_up):
        _predict(model, sample)
    del reported[before:]  # no request's metrics


def _predict(model: Model, sample: Sample) -> None:
    headers = [(b"content-type", sample.content_type.encode("ascii"))]
    if sample.accept is not None:
        headers.append((b"accept", sample.accept.encode("ascii")))
    # As a worker has it: handlers of MMS's kind may change their bytearray.
    request = Request(headers, bytearray(sample.body), "warm-up")
    try:
        (result,) = model([request], True)
        if isinstance(result, BaseException):
            raise result
        _read(result)
    except Exception as error:
        failure = failures.failure_of(error, model.code_dirs, "invoke")
        if failure.status == OutOfResources.status:
            raise
        raise ModelLoadError(_why(sample, f"{failure.status}, {failure.message}")) from error
    if result.status >= 400:
        raise ModelLoadError(_why(sample, f"{result.status} {result.reason}".rstrip()))


def _read(result: Response) -> None:
    """Read a streamed answer to its end: that is where a generator predicts."""
    if isinstance(result.body, Iterator):
        for _ in result.body:
            pass


def _why(sample: Sample, answer: str) -> str:
    return (
        f"the model does not answer its own sample request, {BODY} ({sample.content_type}), with which it is "
        f"to be warmed up: {answer}"
    )
