"""What a framework handler is: four functions, what they read and write, how rows are stacked.

A new framework is one subclass of ``Handler`` in one file. Nothing here imports numpy or a
framework before a method needs it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from mmekit.errors import OutOfResources
from mmekit_handlers.accept import choose

#: A request's body as the worker has it; all three offer the buffer protocol.
Body: TypeAlias = bytes | bytearray | memoryview

#: Types that ``codecs.encode`` writes, the first one being the default answer.
JSON_CSV_NPY = ("application/json", "text/csv", "application/jsonlines", "application/x-npy")

#: How allocators say that memory is short: C++ (XGBoost), torch on CPU, torch on CUDA, CUDA itself.
_OUT_OF_MEMORY_TEXTS = (
    "bad_alloc",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class Request(Protocol):
    """One request as the worker passes it in."""

    @property
    def body(self) -> Body: ...
    @property
    def content_type(self) -> str | None:
        """The raw header with its parameters; None when absent."""

    @property
    def accept(self) -> str | None:
        """The raw header; None when absent."""

    @property
    def custom_attributes(self) -> str | None:
        """``X-Amzn-SageMaker-Custom-Attributes``; None when absent."""

    @property
    def headers(self) -> Mapping[str, str]:
        """All headers; names match in any case."""


class Context(Protocol):
    """What code may want to know about a request and say about its answer.

    The names are those of MMS's ``mms.context.Context``; ``idx`` is the place in the batch, 0 here.
    """

    @property
    def request(self) -> Request: ...
    @property
    def system_properties(self) -> Mapping[str, Any]:
        """``model_dir``, ``gpu_id``, ``batch_size``, …; values are of different types."""

    def get_request_header(self, idx: int, key: str) -> str | None: ...
    def set_response_header(self, idx: int, key: str, value: str) -> None: ...
    def set_response_content_type(self, idx: int, value: str) -> None: ...
    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None: ...
    def get_response_status(self, idx: int) -> tuple[int, str]: ...
    def get_response_headers(self, idx: int) -> Mapping[str, str]: ...


@dataclass(slots=True)
class Response:
    """The answer to one request; a body that is an iterator is sent piece by piece."""

    body: bytes | Iterator[bytes]
    content_type: str | None
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""


class Handler:
    """One framework. An instance serves one model, so it may keep what it learns about the model.

    The model, its inputs and its predictions are ``Any``: they are whatever the framework uses.
    Errors: ``BadRequest`` (row and column in the text), ``UnsupportedMediaType`` and
    ``NotAcceptable`` for the caller's mistakes, ``InvalidModel`` and ``ModelLoadError`` for the
    model's, ``OutOfResources`` when memory is short; anything else is answered as a 5xx.
    """

    #: n stacked rows predict the same as n single rows, so rows of several requests may go in one call.
    #: ``model_fn`` or ``prepare`` may set it on the instance, where it depends on the model.
    row_wise: bool = False
    #: Content types of answers, in order of preference.
    produces: tuple[str, ...] = JSON_CSV_NPY
    #: Content type of an answer when the caller does not mind.
    default_accept: str = "application/json"
    #: What a body without ``Content-Type`` is read as (AWS: sagemaker-containers ``_worker.py``).
    default_content_type: str = "application/json"

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read this framework's settings; ``environ`` is the process environment or a copy of it."""
        self.environ = environ
        self._preferred = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or None

    @classmethod
    def warm_up(cls) -> None:
        """Make one tiny prediction on one thread; the template process calls it before it forks."""

    def model_fn(self, model_dir: str) -> Any:
        """Load the model from its folder, which may be read-only."""
        raise NotImplementedError(f"{type(self).__name__} does not define model_fn(model_dir)")

    def prepare(self, model: Any) -> Any:
        """Make a loaded model ready for this handler's ``predict_fn``; called once, after loading.

        Also called for what a user's own ``model_fn`` returned; not called when a user's
        ``predict_fn`` or ``transform_fn`` predicts, which gets the model as ``model_fn`` left it.
        """
        return model

    def input_fn(self, body: Body, content_type: str | None, context: Context) -> Any:
        """Read a body: tables become ``(rows, columns)`` float64, arrays keep their shape and dtype.

        ``content_type`` is the raw header.
        """
        from mmekit_handlers import codecs

        return codecs.read_array(body, content_type or self.default_content_type)

    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        """Predict for all rows of ``data``."""
        return model.predict(data)

    def output_fn(
        self, prediction: Any, accept: str | None, context: Context
    ) -> tuple[bytes | Iterator[bytes], str]:
        """Write a prediction as one of ``produces``; ``accept`` is the raw header."""
        from mmekit_handlers import codecs

        content_type = self.negotiate(accept)
        return codecs.encode(prediction, content_type), content_type

    def negotiate(self, accept: str | None) -> str:
        """Return which of ``produces`` the caller wants; raises ``NotAcceptable``."""
        return choose(accept, self.produces, self.default_accept, self._preferred)

    # Stacking: called only while row_wise is true. The defaults know numpy arrays with rows first.

    def group_key(self, data: Any, context: Context) -> Hashable | None:
        """Return what inputs must share to be stacked; None when this one must go alone."""
        shape = getattr(data, "shape", None)
        dtype = getattr(data, "dtype", None)
        if shape is None or dtype is None or len(shape) < 2:
            return None
        return tuple(shape[1:]), str(dtype), context.request.custom_attributes

    def rows(self, data: Any) -> int:
        """Return how many rows an input has."""
        return int(data.shape[0])

    def stack(self, inputs: Sequence[Any]) -> Any:
        """Return one input with the rows of all, in order; the inputs share their ``group_key``."""
        import numpy as np

        return np.concatenate(inputs)

    def split(self, prediction: Any, rows: Sequence[int]) -> list[Any]:
        """Cut the prediction of stacked inputs into one a request; ``rows`` are their row counts.

        Raises ``ValueError`` when the prediction does not have one entry a row.
        """
        if len(prediction) != sum(rows):
            raise ValueError(f"{sum(rows)} rows went in, {len(prediction)} predictions came out")
        parts = []
        start = 0
        for count in rows:
            parts.append(prediction[start : start + count])
            start += count
        return parts


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception, or one that it was raised from, means that memory is short."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, MemoryError | OutOfResources):
            return True
        # torch.OutOfMemoryError and its alias in torch.cuda, without importing torch.
        if type(current).__name__ == "OutOfMemoryError":
            return True
        text = str(current)
        if any(known in text for known in _OUT_OF_MEMORY_TEXTS):
            return True
        current = current.__cause__ or current.__context__
    return False
