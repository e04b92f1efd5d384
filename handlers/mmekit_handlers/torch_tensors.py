"""Tensors in the shapes that models take and give: named, nested, on a device, as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmekit.errors import BadRequest, NotAcceptable

# numpy has no bfloat16 and no 8-bit floats.
_NUMPY_DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
}  # fmt: skip


class NamedTensors(dict[str, torch.Tensor]):
    """The inputs of ``{"inputs": {"name": [...]}}``; they become the model's keyword arguments."""


def cast(tensor: torch.Tensor, dtype: torch.dtype, name: str | None = None) -> torch.Tensor:
    """Convert a tensor; raises ``BadRequest`` where an integer dtype would lose fractions or NaN."""
    result = tensor.to(dtype)
    integers = not (dtype.is_floating_point or dtype.is_complex)
    if integers and tensor.is_floating_point() and not torch.equal(result.to(tensor.dtype), tensor):
        of = f"input {name!r}" if name else "the input"
        raise BadRequest(f"{of} has values that are no integers; the model reads {_plain(dtype)}")
    return result


def describe_input(data: Any) -> str:
    """Return what a model was given, by shape and dtype, for an error's text."""
    if isinstance(data, torch.Tensor):
        return f"an input {_shape(data)}"
    if isinstance(data, NamedTensors):
        return "inputs " + ", ".join(f"{name!r} {_shape(tensor)}" for name, tensor in data.items())
    return f"this {type(data).__name__}"


def to_device(tree: Any, device: torch.device) -> Any:
    """Move all tensors in lists, tuples and dicts; tensors that are there already are not copied."""
    if isinstance(tree, torch.Tensor):
        return tree if tree.device == device else tree.to(device)
    if isinstance(tree, NamedTensors):
        return NamedTensors({name: to_device(value, device) for name, value in tree.items()})
    if type(tree) is dict:
        return {name: to_device(value, device) for name, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(to_device(value, device) for value in tree)
    # Types with tensors inside have a method of this name, such as a tokenizer's BatchEncoding.
    move = getattr(tree, "to", None)
    return move(device) if callable(move) else tree


def single(prediction: Any, content_type: str) -> Any:
    """Return the one tensor of a tuple, list or dict; raises ``NotAcceptable`` when there are several."""
    if not isinstance(prediction, list | tuple | dict):
        return prediction
    values = list(prediction.values()) if isinstance(prediction, dict) else list(prediction)
    if not any(isinstance(value, torch.Tensor) for value in values):
        return prediction
    if len(values) == 1:
        return values[0]
    raise NotAcceptable(
        f"the model answers with {len(values)} tensors and {content_type} holds one: ask for application/json"
    )


def to_numpy(prediction: Any) -> Any:
    """Return the same lists and dicts with arrays for tensors; what numpy cannot hold becomes float32."""
    if isinstance(prediction, torch.Tensor):
        tensor = prediction.detach().cpu()
        if tensor.is_sparse:
            tensor = tensor.to_dense()
        if tensor.dtype not in _NUMPY_DTYPES:
            tensor = tensor.to(torch.float32)
        return tensor.resolve_conj().resolve_neg().numpy()
    if isinstance(prediction, Mapping):
        return {name: to_numpy(value) for name, value in prediction.items()}
    if isinstance(prediction, list | tuple):
        return [to_numpy(value) for value in prediction]
    return prediction


def _shape(tensor: torch.Tensor) -> str:
    return f"of shape {tuple(tensor.shape)}, {_plain(tensor.dtype)}"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
