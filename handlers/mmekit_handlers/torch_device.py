"""The device of a PyTorch model: which one, how much of its memory, and what its failures mean.

CUDA is asked only where a GPU was assigned or wanted, and never in the process that workers are
forked from: a CUDA context does not survive a fork.
"""

from __future__ import annotations

import gc
import re

import torch

from mmekit.errors import ConfigError, MmekitError, ModelLoadError, OutOfResources, PredictionFailed
from mmekit_handlers.base import is_out_of_memory

DEVICE_SETTING = "MMEKIT_PYTORCH_DEVICE"

_CUDA_NAME = re.compile(r"cuda(?::(\d+))?")
_MENTIONS_CUDA = re.compile(r"CUDA|cuBLAS|CUBLAS|cuDNN|CUDNN|device-side assert")


class FatalDeviceError(PredictionFailed):
    """Raised when an error left the process's CUDA context unusable: a device-side assert, a bad address.

    Every later CUDA call of the process fails too, so a worker answers this call and then ends
    itself: that is what ``fatal`` says.
    """

    fatal = True


def choose_device(setting: str, gpu_id: int | None) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``gpu_id`` is the worker's GPU.

    ``auto`` is the worker's GPU where there is one that works, else the CPU. Raises
    ``ConfigError`` for another setting, ``ModelLoadError`` for a device that is not there.
    """
    if setting == "cpu" or (setting == "auto" and gpu_id is None):
        return torch.device("cpu")
    match = _CUDA_NAME.fullmatch(setting)
    if match is None and setting != "auto":
        raise ConfigError(f"{DEVICE_SETTING} is {setting!r}; expected auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        if setting == "auto":
            return torch.device("cpu")
        raise ModelLoadError(f"{DEVICE_SETTING} is {setting!r}, but {_why_no_cuda()}; set it to auto or cpu")
    index = int(match[1]) if match and match[1] else gpu_id or 0
    if index >= torch.cuda.device_count():
        raise ModelLoadError(
            f"device cuda:{index} is not there: torch sees {torch.cuda.device_count()} GPU(s), counted from 0"
        )
    return torch.device("cuda", index)


def device_bytes(tensors: list[torch.Tensor]) -> int:
    """Return how many bytes of device memory tensors hold; storage that they share counts once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.is_cuda}
    return sum(storages.values())


def release() -> None:
    """Give device memory that nothing refers to any more back to the driver."""
    gc.collect()
    if cuda_is_initialized():
        torch.cuda.empty_cache()


def cuda_is_initialized() -> bool:
    """Say whether this process has a CUDA context; asking does not make one."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def device_failure(error: Exception, device: torch.device) -> MmekitError | None:
    """Return the error to answer with when memory ran out or the device broke; None for other errors."""
    said = first_line(error)
    if is_out_of_memory(error):
        where = "memory" if device.type == "cpu" else f"memory of device {device}"
        return OutOfResources(f"{where} ran out: {said}; unload other models or send less at once")
    if device.type == "cuda" and _MENTIONS_CUDA.search(str(error)) and _is_broken(device):
        return FatalDeviceError(f"device {device} failed, its worker must be replaced: {said}")
    return None


def first_line(error: BaseException) -> str:
    """Return what an exception says in one line, without the traceback that TorchScript puts before it."""
    text = str(error).strip()
    if "Traceback of TorchScript" in text:
        text = text.rpartition("\nRuntimeError: ")[2] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _is_broken(device: torch.device) -> bool:
    """Ask the device for a trivial thing: errors that poison a context come back from every later call."""
    try:
        torch.cuda.synchronize(device)
        return torch.ones(1, device=device).item() != 1
    except RuntimeError as error:
        return not is_out_of_memory(error)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} in this image is built without CUDA"
    return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU or driver in this container"
