"""Loads PyTorch files that hold a whole model: TorchScript, torch.export archives, trusted pickles."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import torch

from mmekit.errors import BadRequest, ModelLoadError
from mmekit_handlers.base import is_out_of_memory
from mmekit_handlers.torch_device import first_line
from mmekit_handlers.torch_files import Kind, ModelFile, describe
from mmekit_handlers.torch_tensors import NamedTensors, cast, describe_input

_EXAMPLE = """\
from mmekit_handlers.pytorch import load_weights
from my_model import MyModel  # your class, in code/my_model.py

def model_fn(model_dir):
    return load_weights(MyModel, model_dir + "/{name}")
"""


# What torch says when an input's shape, dtype or values do not suit an operator: it has no type for this.
_INPUT_ERROR = re.compile(
    r"\b(shapes?|sizes?|dimensions?|channels|elements|dtype|scalar types?|out of (range|bounds))\b"
    r"|Input type \(|^forward\(\)|^Unknown keyword argument"
)
# The end of what an Embedding says to floats.
_WANTS_INTEGERS = "scalar types: Long, Int"
_INPUT_ERROR_TYPES = (RuntimeError, IndexError, AssertionError)
_INTEGER_ADVICE = "; to send integers use application/json; dtype=int64, or npy"


def load(file: ModelFile, device: torch.device, allow_pickle: bool) -> torch.nn.Module | Exported:
    """Load a file that holds a whole model onto ``device``.

    Raises ``ModelLoadError``: for weights with the ``model_fn`` to write, for pickled objects
    (unless ``allow_pickle``) with the two ways out, else with what torch said and its version.
    """
    if file.kind is Kind.TORCHSCRIPT:
        return _load_torchscript(file, device)
    if file.kind is Kind.EXPORTED:
        return _load_exported(file, device)
    if file.kind is Kind.OBJECTS and allow_pickle:
        return _unpickle(file, device)
    raise ModelLoadError(_needs_objects(file) if file.kind is Kind.OBJECTS else _needs_code(file))


class Exported:
    """A ``torch.export`` program as a callable that checks its inputs.

    Tensors are cast to the dtypes the program was exported with. Inputs may be given by name even
    where the program takes them by place. ``BadRequest`` names the input that does not fit.
    """

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.module = program.module()
        names = set(program.graph_signature.user_inputs)
        inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
        # Shape and dtype: a size is an int where it was exported as fixed, else symbolic.
        self._inputs = {node.name: _shape_and_dtype(node.meta["val"]) for node in inputs}
        spec = program.call_spec.in_spec
        self._keywords = [str(name) for name in spec.child(1).context or ()] if spec is not None else []

    @property
    def rows_are_fixed(self) -> bool:
        """Whether some input was exported for one number of rows only."""
        return any(not shape or isinstance(shape[0], int) for shape, _ in self._inputs.values())

    def tensors(self) -> list[torch.Tensor]:
        return [*self.module.parameters(), *self.module.buffers()]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = list(self._inputs)
        by_place = names[: len(names) - len(self._keywords)]
        given = dict(zip(by_place, args, strict=False)) | kwargs
        if len(args) > len(by_place) or given.keys() != self._inputs.keys():
            raise BadRequest(f"the model takes {', '.join(names)}; {_said(args, kwargs)}")
        fitted = {name: self._fit(name, value) for name, value in given.items()}
        try:
            return self.module(
                *(fitted[name] for name in by_place), **{name: fitted[name] for name in self._keywords}
            )
        except AssertionError as error:  # a guard that torch.export adds: ranges, sizes that must agree
            raise BadRequest(f"the input does not fit the exported model: {first_line(error)}") from error

    def _fit(self, name: str, value: Any) -> Any:
        shape, dtype = self._inputs[name]
        if dtype is None or not isinstance(value, torch.Tensor):
            return value
        fits = len(shape) == value.ndim and all(
            not isinstance(expected, int) or expected == size
            for expected, size in zip(shape, value.shape, strict=True)
        )
        if not fits:
            sizes = ", ".join(str(size) if isinstance(size, int) else "*" for size in shape)
            raise BadRequest(
                f"input {name!r} has shape {tuple(value.shape)}; the model was exported for ({sizes})"
            )
        return cast(value, dtype, name)


def tensors_of(model: Any) -> list[torch.Tensor]:
    """Return parameters and buffers; [] for what is no module, as a user's ``model_fn`` may return."""
    if isinstance(model, Exported):
        return model.tensors()
    if isinstance(model, torch.nn.Module):
        return [*model.parameters(), *model.buffers()]
    return []


def input_failure(error: Exception, model: Any, data: Any) -> BadRequest | None:
    """Return a 400 when the model's complaint is about what it was given; None when it is the model's own."""
    text = first_line(error)
    about_input = isinstance(error, _INPUT_ERROR_TYPES) and _INPUT_ERROR.search(text)
    if about_input or (isinstance(error, TypeError) and not _accepts(model, data)):
        advice = (
            "; for integers send application/json; dtype=int64, or npy" if _WANTS_INTEGERS in text else ""
        )
        return BadRequest(f"the model cannot take {describe_input(data)}: {text}{advice}")
    return None


def _accepts(model: Any, data: Any) -> bool:
    """Say whether the arguments suit the model's ``forward`` by number and name."""
    try:
        signature = inspect.signature(getattr(model, "forward", model))
        if isinstance(data, NamedTensors):
            signature.bind(**data)
        else:
            signature.bind(data)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def cannot_read(file: ModelFile, error: Exception) -> ModelLoadError:
    """Return the error for a file that this torch does not read, with versions and what torch said."""
    advice = ""
    if "Unknown builtin op" in str(error):
        advice = "; import the package that registers this operator in code/inference.py"
    elif "not compiled with CUDA" in str(error) or "No CUDA GPUs" in str(error):
        advice = "; it was saved with tensors on a GPU: move the model to the CPU before saving"
    reason = f"{type(error).__name__}: {first_line(error)}{advice}"
    return ModelLoadError(f"torch {torch.__version__} cannot read {describe(file)}: {reason}")


def _load_torchscript(file: ModelFile, device: torch.device) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():
            # torch 2.13 recommends torch.export at each load; who could act does not read this log.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(file.path), map_location=device)  # type: ignore[no-untyped-call, no-any-return]
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        if is_out_of_memory(error):
            raise
        raise cannot_read(file, error) from error


def _load_exported(file: ModelFile, device: torch.device) -> Exported:
    try:
        program = torch.export.load(file.path)
        tensors = [*program.state_dict.values(), *program.constants.values()]
        if any(isinstance(tensor, torch.Tensor) and tensor.device != device for tensor in tensors):
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return Exported(program)
    except Exception as error:  # so does an archive of another version
        if is_out_of_memory(error):
            raise
        raise cannot_read(file, error) from error


def _unpickle(file: ModelFile, device: torch.device) -> torch.nn.Module:
    try:
        model = torch.load(file.path, map_location=device, weights_only=False)
    except (AttributeError, ImportError) as error:
        raise ModelLoadError(
            f"{file.name} pickles {', '.join(file.objects)}, which cannot be imported here: {error}. "
            "Put the module that defines it into code/, under the name it had when the model was saved"
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise ModelLoadError(f"{file.name} holds a {type(model).__name__}, not an nn.Module: write model_fn")
    return model


def _needs_code(file: ModelFile) -> str:
    return (
        f"{file.name} is a {file.kind.value}: weights without the class that they belong to. "
        f"Write model_fn in code/inference.py, for example:\n\n{_EXAMPLE.format(name=file.name)}"
    )


def _needs_objects(file: ModelFile) -> str:
    return (
        f"{file.name} pickles Python objects besides tensors ({', '.join(file.objects)}), probably a whole "
        "nn.Module from torch.save(model). To load it runs code from the file and needs those classes. "
        'Either save a program, torch.export.save(torch.export.export(model, inputs), "model.pt2"); or save '
        'weights, torch.save(model.state_dict(), "model.pt"), and write model_fn in code/inference.py:\n\n'
        f"{_EXAMPLE.format(name='model.pt')}\n"
        "MMEKIT_PYTORCH_ALLOW_PICKLE=true loads it as it is: for files you trust, with the classes in code/."
    )


def _shape_and_dtype(value: Any) -> tuple[tuple[Any, ...], torch.dtype | None]:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    return (), None  # a number or text that was an argument


def _said(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if kwargs and not args:
        return f"the body names {', '.join(kwargs)}"
    return f"the body holds {len(args) + len(kwargs)} input(s); send " + '{"inputs": {"name": [...], ...}}'
