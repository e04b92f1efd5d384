"""PyTorch models: TorchScript, torch.export archives, and weights with the model's own ``model_fn``.

Kinds of file and how each is loaded: ``torch_files``, ``torch_models``, ``torch_weights``; which
device and what its errors mean: ``torch_device``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy.typing as npt
import torch

from mmekit.errors import BadRequest, ConfigError, MmekitError
from mmekit_handlers import codecs, torch_warm_up
from mmekit_handlers.accept import MediaType, parse
from mmekit_handlers.base import Body, Context, Handler
from mmekit_handlers.json_codec import parse_json, write_json
from mmekit_handlers.torch_device import (
    DEVICE_SETTING,
    FatalDeviceError,
    choose_device,
    device_bytes,
    device_failure,
    release,
)
from mmekit_handlers.torch_files import find
from mmekit_handlers.torch_models import Exported, input_failure, load, tensors_of
from mmekit_handlers.torch_tensors import NamedTensors, cast, single, to_device, to_numpy
from mmekit_handlers.torch_weights import load_weights

__all__ = ["FatalDeviceError", "PyTorchHandler", "load_weights"]

_T = TypeVar("_T")

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
}


class PyTorchHandler(Handler):
    """Serves any model that takes tensors and answers with tensors, or lists, tuples and dicts of them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.row_wise = _flag(environ, "MMEKIT_PYTORCH_ROW_WISE")
        self._allow_pickle = _flag(environ, "MMEKIT_PYTORCH_ALLOW_PICKLE")
        self._device_setting = environ.get(DEVICE_SETTING) or "auto"
        self._gpu_id = _gpu_id(environ)
        self._dtype_setting = _dtype_setting(environ)
        # What prepare learns about the model: where its inputs go, and as what.
        self._device: torch.device | None = None
        self._float_dtype = torch.float32
        self._casts_itself = False
        # Here, because a user's own model_fn and predict_fn leave nothing else of this class to run first.
        torch_warm_up.use_threads(_threads(environ))

    @classmethod
    def warm_up(cls) -> None:
        """Predict once with each kind of model, on one thread and never on a GPU.

        The libraries behind torch.export take 1.7 s and 100 MiB: MMEKIT_PYTORCH_WARM_EXPORT=true
        has the template import them once, instead of each worker that loads an archive.
        """
        torch_warm_up.warm_up(export=_flag(os.environ, "MMEKIT_PYTORCH_WARM_EXPORT"))

    def model_fn(self, model_dir: str) -> torch.nn.Module | Exported:
        """Load the model's file; see ``torch_files.find`` for which, ``torch_models.load`` for how."""
        file = find(model_dir)
        device = self._chosen_device()
        return _on_device(device, lambda: load(file, device, self._allow_pickle))

    def prepare(self, model: Any) -> Any:
        """Put the model into eval mode on its device; a model that is already on a GPU stays there."""
        wanted = self._chosen_device()
        if isinstance(model, torch.export.ExportedProgram):
            model = Exported(model)
        elif isinstance(model, torch.nn.Module):
            model = _eval(model)
            if wanted.type == "cuda" and not any(tensor.is_cuda for tensor in tensors_of(model)):
                model = _on_device(wanted, lambda: _move(model, wanted))
        if isinstance(model, Exported):
            self._casts_itself = True
            self.row_wise = self.row_wise and not model.rows_are_fixed
        tensors = tensors_of(model)
        self._device = tensors[0].device if tensors else wanted
        floats = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
        self._float_dtype = next(floats, torch.float32)
        return model

    def input_fn(self, body: Body, content_type: str | None, context: Context) -> torch.Tensor | NamedTensors:
        """Read JSON, CSV, JSON Lines or NPY as a tensor on the model's device.

        Floats become the model's own floating dtype. Integers of NPY stay what they are; numbers of
        text become what the header says (``application/json; dtype=int64``), else
        MMEKIT_PYTORCH_DTYPE, else that floating dtype. A torch.export program gets the dtypes that
        it was exported with.
        """
        media = parse(content_type or self.default_content_type)
        if media.name == "application/x-npy":
            return self._tensor(codecs.read_npy(bytes(body)), None)
        dtype = _dtype_of_body(media) or self._dtype_setting or self._float_dtype
        if media.name == "application/json":
            text = codecs.text_body(body, media)
            named = _named_inputs(text)
            if named is not None:
                return NamedTensors({name: self._named_tensor(name, named[name], dtype) for name in named})
            return self._tensor(codecs.read_json_array(text), dtype)
        return self._tensor(codecs.read_array(body, content_type or self.default_content_type), dtype)

    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        """Call the model without gradients; its tensors come back on the CPU.

        Raises ``BadRequest`` when the input does not suit the model, ``OutOfResources`` when memory
        runs out and ``FatalDeviceError`` when the device is lost.
        """
        device = self._device or self._chosen_device()
        try:
            with torch.inference_mode():
                inputs = to_device(data, device)
                prediction = model(**inputs) if isinstance(inputs, NamedTensors) else model(inputs)
                # Waiting for the device here: its errors are reported by the call that waits.
                return to_device(prediction, torch.device("cpu"))
        except MmekitError:
            raise
        except Exception as error:  # whatever a model raises; what is not recognised goes on as it is
            failure = device_failure(error, device) or input_failure(error, model, data)
            if failure is None:
                raise
        # Outside of the except block the error's frames, and the tensors in them, are free.
        if failure.status == 507:
            release()
        raise failure

    def output_fn(
        self, prediction: Any, accept: str | None, context: Context
    ) -> tuple[bytes | Iterator[bytes], str]:
        """Write tensors, and lists, tuples and dicts of them; bfloat16 is written as float32.

        Only JSON holds more than one tensor.
        """
        content_type = self.negotiate(accept)
        if content_type != "application/json":
            prediction = single(prediction, content_type)
        return codecs.encode(to_numpy(prediction), content_type), content_type

    def group_key(self, data: Any, context: Context) -> Hashable | None:
        """Return shape beyond the rows, dtype and device of each tensor."""
        tensors = data if isinstance(data, NamedTensors) else {"": data}
        if not all(isinstance(tensor, torch.Tensor) and tensor.ndim > 1 for tensor in tensors.values()):
            return None
        if len({len(tensor) for tensor in tensors.values()}) != 1:
            return None
        kinds = [(name, t.shape[1:], t.dtype, t.device) for name, t in sorted(tensors.items())]
        return tuple(kinds), context.request.custom_attributes

    def rows(self, data: Any) -> int:
        return len(next(iter(data.values()))) if isinstance(data, NamedTensors) else len(data)

    def stack(self, inputs: Sequence[Any]) -> Any:
        if isinstance(inputs[0], NamedTensors):
            return NamedTensors({name: torch.cat([each[name] for each in inputs]) for name in inputs[0]})
        return torch.cat(list(inputs))

    def split(self, prediction: Any, rows: Sequence[int]) -> list[Any]:
        """Cut each tensor of the prediction; its lists, tuples and dicts are made again for each request."""
        if isinstance(prediction, dict):
            parts = {name: self.split(value, rows) for name, value in prediction.items()}
            return [{name: part[i] for name, part in parts.items()} for i in range(len(rows))]
        if isinstance(prediction, list | tuple):
            columns = [self.split(value, rows) for value in prediction]
            return [tuple(column[i] for column in columns) for i in range(len(rows))]
        if not isinstance(prediction, torch.Tensor) or prediction.ndim == 0:
            raise ValueError(f"a {type(prediction).__name__} without rows cannot be split among requests")
        return super().split(prediction, rows)

    def device_bytes(self, model: Any) -> int:
        """Return the device memory of a model's parameters and buffers, 0 on the CPU."""
        return device_bytes(tensors_of(model))

    def release(self) -> None:
        """Return freed device memory to the driver; call it after the last reference to a model is gone."""
        release()

    def _chosen_device(self) -> torch.device:
        device = choose_device(self._device_setting, self._gpu_id)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # what code calls plain "cuda"
        return device

    def _named_tensor(self, name: str, value: Any, dtype: torch.dtype) -> torch.Tensor:
        if isinstance(value, dict | str) or value is None:
            raise BadRequest(f"input {name!r} is not an array of numbers")
        try:
            return self._tensor(codecs.read_json_array(write_json(value)), dtype)
        except BadRequest as error:
            raise BadRequest(f"input {name!r}: {error.message}") from None

    def _tensor(self, array: npt.NDArray[Any], dtype: torch.dtype | None) -> torch.Tensor:
        """Make a tensor of ``dtype``; None keeps integers and gives floats the model's dtype."""
        try:
            # from_numpy shares memory, and warns when it must not be written to.
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        except TypeError:
            raise BadRequest(f"the body is an array of {array.dtype}; torch has no such tensors") from None
        if dtype is None:
            dtype = self._float_dtype if tensor.is_floating_point() else tensor.dtype
        if not self._casts_itself:
            tensor = cast(tensor, dtype)
        if self._device is None:  # the user's own predict_fn: prepare was not called
            self._device = self._chosen_device()
        if self._device.type == "cpu":
            return tensor
        device = self._device
        return _on_device(device, lambda: tensor.to(device, non_blocking=True))


def _named_inputs(body: bytes) -> dict[str, Any] | None:
    """Return what ``{"inputs": {"name": …}}`` names; None for every other document."""
    if body.count(b"{") < 2 or b'"inputs"' not in body:
        return None  # without parsing: nearly all bodies
    document = parse_json(body)
    inputs = document.get("inputs") if isinstance(document, dict) else None
    return inputs if isinstance(inputs, dict) and inputs else None


def _move(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    try:
        return model.to(device)
    except RuntimeError:
        model.to(
            "meta"
        )  # what has been moved already would hold device memory while the caller holds the model
        raise


def _eval(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return model.eval()
    except NotImplementedError:  # the module of an exported program has one mode only
        return model


def _on_device(device: torch.device, work: Callable[[], _T]) -> _T:
    """Run ``work``; running out of memory gives back what it took, and is a 507."""
    try:
        return work()
    except MmekitError:
        raise
    except Exception as error:  # what means neither memory nor device goes on as it is
        failure = device_failure(error, device)
        if failure is None:
            raise
    release()
    raise failure


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value in ("true", "1", "yes", "on"):
        return True
    if value in ("", "false", "0", "no", "off"):
        return False
    raise ConfigError(f"{name} is {environ[name]!r}; expected true or false")


def _gpu_id(environ: Mapping[str, str]) -> int | None:
    value = environ.get("MMEKIT_GPU_ID") or None
    if value is not None and not value.isdecimal():
        raise ConfigError(f"MMEKIT_GPU_ID is {value!r}; expected the number of a GPU, from 0")
    return None if value is None else int(value)


def _dtype_setting(environ: Mapping[str, str]) -> torch.dtype | None:
    name = environ.get("MMEKIT_PYTORCH_DTYPE") or "auto"
    if name == "auto":
        return None
    if name not in _DTYPES:
        raise ConfigError(f"MMEKIT_PYTORCH_DTYPE is {name!r}; expected auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _dtype_of_body(media: MediaType) -> torch.dtype | None:
    name = media.parameters.get("dtype")
    if name is not None and name not in _DTYPES:
        raise BadRequest(f"Content-Type says dtype={name}; expected one of {', '.join(_DTYPES)}")
    return None if name is None else _DTYPES[name]


def _threads(environ: Mapping[str, str]) -> int:
    value = environ.get("MMEKIT_PYTORCH_THREADS") or environ.get("OMP_NUM_THREADS") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"MMEKIT_PYTORCH_THREADS is {value!r}; expected a whole number from 1")
    return int(value)
