"""The PyTorch handler on a real GPU: devices, memory of the device, and errors that end a worker."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmekit.errors import ModelLoadError, OutOfResources
from mmekit_handlers.pytorch import PyTorchHandler, load_weights
from tests.support.pytorch import Context, Net, ask, module_of, save_torchscript, served

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ROWS = [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]
GPU = {"MMEKIT_GPU_ID": "0"}
#: Added to what the allocator may keep for itself between measurements.
SLACK_BYTES = 4 << 20


@pytest.fixture(autouse=True)
def _device_left_as_found() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_torchscript(Net().eval(), tmp_path / "model.pt")
    return tmp_path


def test_the_workers_gpu_is_taken_by_default_and_answers_equal_those_of_the_cpu(folder: Path) -> None:
    handler, model = served(folder, GPU)
    assert {tensor.device for tensor in model.parameters()} == {torch.device("cuda", 0)}
    on_cpu = ask(*served(folder, {"MMEKIT_PYTORCH_DEVICE": "cpu"}), ROWS)
    np.testing.assert_allclose(ask(handler, model, ROWS), on_cpu, rtol=1e-3, atol=1e-4)


def test_without_a_gpu_of_its_own_a_worker_stays_on_the_cpu(folder: Path) -> None:
    _, model = served(folder, {})
    assert {tensor.device.type for tensor in model.parameters()} == {"cpu"}


def test_an_exported_program_is_moved_to_the_device(tmp_path: Path) -> None:
    net = Net().eval()
    rows = torch.export.Dim("rows")
    program = torch.export.export(net, (torch.zeros(2, 3),), dynamic_shapes=({0: rows},))
    torch.export.save(program, tmp_path / "model.pt2")
    handler, model = served(tmp_path, GPU)
    assert handler.device_bytes(model) > 0
    expected = net(torch.tensor(ROWS)).detach()
    np.testing.assert_allclose(ask(handler, model, ROWS), expected, rtol=1e-3, atol=1e-4)


def test_a_module_of_the_users_own_is_moved_to_the_device(tmp_path: Path) -> None:
    net = Net().eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    handler = PyTorchHandler(GPU)
    model = handler.prepare(load_weights(Net, tmp_path / "net.pth"))
    assert {tensor.device.type for tensor in model.parameters()} == {"cuda"}
    expected = net(torch.tensor(ROWS)).detach()
    np.testing.assert_allclose(ask(handler, model, ROWS), expected, rtol=1e-3, atol=1e-4)


def test_a_gpu_that_is_not_there_fails_the_load_and_says_so(folder: Path) -> None:
    missing = torch.cuda.device_count()
    with pytest.raises(ModelLoadError, match=f"device cuda:{missing} is not there: torch sees {missing} GPU"):
        served(folder, {"MMEKIT_PYTORCH_DEVICE": f"cuda:{missing}"})


def test_many_models_live_on_one_device_and_each_keeps_its_own_answers(tmp_path: Path) -> None:
    loaded = []
    for number in range(100):
        folder = tmp_path / str(number)
        folder.mkdir()
        net = Net().eval()
        save_torchscript(net, folder / "model.pt")
        loaded.append((served(folder, GPU), net(torch.tensor(ROWS)).detach()))
    for (handler, model), expected in reversed(loaded):
        np.testing.assert_allclose(ask(handler, model, ROWS), expected, rtol=1e-3, atol=1e-4)


def test_an_unloaded_model_gives_its_device_memory_back() -> None:
    handler = PyTorchHandler(GPU)
    handler.prepare(torch.nn.Linear(8, 8))  # the context and its libraries stay
    handler.release()
    free_before = torch.cuda.mem_get_info(0)[0]
    model = handler.prepare(torch.nn.Linear(4096, 4096))
    assert handler.device_bytes(model) == 4 * (4096 * 4096 + 4096)
    assert torch.cuda.mem_get_info(0)[0] < free_before - handler.device_bytes(model) + SLACK_BYTES
    del model
    handler.release()
    assert torch.cuda.mem_get_info(0)[0] > free_before - SLACK_BYTES


def limit_to(megabytes: int) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + (megabytes << 20)) / total)


def test_a_model_that_does_not_fit_on_the_device_is_out_of_resources() -> None:
    handler = PyTorchHandler(GPU)
    small = handler.prepare(Net().eval())
    limit_to(64)
    reserved = torch.cuda.memory_reserved(0)
    with pytest.raises(OutOfResources, match="memory of device cuda:0 ran out: CUDA out of memory"):
        handler.prepare(torch.nn.Sequential(*[torch.nn.Linear(2048, 2048) for _ in range(16)]))
    assert torch.cuda.memory_reserved(0) <= reserved + SLACK_BYTES
    assert len(ask(handler, small, ROWS)) == 2


def test_a_request_that_does_not_fit_on_the_device_is_out_of_resources_and_the_next_one_works() -> None:
    handler = PyTorchHandler(GPU)
    model = handler.prepare(module_of(lambda x: x.expand(1 << 28).clone() if x.sum() > 1 else x))
    assert ask(handler, model, [1]) == [1]
    limit_to(64)
    reserved = torch.cuda.memory_reserved(0)
    with pytest.raises(OutOfResources, match="memory of device cuda:0 ran out"):
        ask(handler, model, [2])
    assert torch.cuda.memory_reserved(0) <= reserved + SLACK_BYTES
    assert ask(handler, model, [1]) == [1]


_ASSERT_ON_DEVICE = """
import json, torch
from mmekit_handlers.pytorch import FatalDeviceError, PyTorchHandler
from tests.support.pytorch import ask
handler = PyTorchHandler({"MMEKIT_GPU_ID": "0"})
model = handler.prepare(torch.nn.Embedding(4, 2))
try:
    ask(handler, model, [99], "application/json; dtype=int64")
except FatalDeviceError as error:
    assert error.fatal
    print(error)
"""


def test_an_error_that_breaks_the_device_says_that_the_worker_must_end() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _ASSERT_ON_DEVICE],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "device cuda:0 failed, its worker must be replaced" in done.stdout, done.stderr


def test_a_wrong_shape_on_the_device_is_the_callers_mistake_and_breaks_nothing(folder: Path) -> None:
    from mmekit.errors import BadRequest

    handler, model = served(folder, GPU)
    with pytest.raises(BadRequest, match=r"shape \(1, 4\), float32: mat1 and mat2"):
        ask(handler, model, [[1, 2, 3, 4]])
    assert len(ask(handler, model, ROWS)) == 2


def test_predictions_come_back_on_the_cpu(folder: Path) -> None:
    handler, model = served(folder, GPU)
    data = handler.input_fn(json.dumps(ROWS).encode(), None, Context())
    assert data.is_cuda
    assert not handler.predict_fn(data, model, Context()).is_cuda
