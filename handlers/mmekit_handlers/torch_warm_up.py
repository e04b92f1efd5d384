"""The first predictions of a process, made before workers are forked from it: 75 → 4 ms for TorchScript.

Importing torch starts no thread, and nothing here does: a process forked from one with threads of
libgomp hangs when it uses them. Takes 0.1 s.
"""

from __future__ import annotations

import io
import warnings

import torch

from mmekit_handlers.torch_device import cuda_is_initialized
from mmekit_handlers.torch_models import Exported


def warm_up(export: bool) -> None:
    """Load and call a tiny model of each kind, torch.export's only when asked: 1.7 s and 100 MiB."""
    use_threads(1)
    module, rows = torch.nn.Linear(2, 2).eval(), torch.zeros(1, 2)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript, on each use
        _warm_up_torchscript(module, rows)
        _warm_up_weights(module, rows)
    if export:
        _warm_up_export(module, rows)
    assert not cuda_is_initialized(), "CUDA must not be initialised before a fork"


def use_threads(threads: int) -> None:
    """Set the threads of one operator; operators of one call never run beside each other."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        try:
            torch.set_num_interop_threads(1)
        except RuntimeError:
            pass  # user code has set it, or has run such operators already: theirs stands


def _warm_up_torchscript(module: torch.nn.Module, rows: torch.Tensor) -> None:
    program = io.BytesIO()
    # Not torch.jit.trace, whose imports take 1.2 s and 50 MiB.
    torch.jit.save(torch.jit.script(module), program)
    program.seek(0)
    script = torch.jit.load(program)  # type: ignore[no-untyped-call]
    for _ in range(3):  # the first call is profiled, the second compiles
        script(rows)


def _warm_up_weights(module: torch.nn.Module, rows: torch.Tensor) -> None:
    from safetensors.torch import load, save

    weights = io.BytesIO()
    torch.save(module.state_dict(), weights)
    weights.seek(0)
    for loaded in torch.load(weights, weights_only=True), load(save(module.state_dict())):
        with torch.device("meta"):
            other = torch.nn.Linear(2, 2)
        other.load_state_dict(loaded, assign=True)
        other(rows)


def _warm_up_export(module: torch.nn.Module, rows: torch.Tensor) -> None:
    archive = io.BytesIO()
    torch.export.save(torch.export.export(module, (rows,)), archive)
    archive.seek(0)
    Exported(torch.export.load(archive))(rows)
