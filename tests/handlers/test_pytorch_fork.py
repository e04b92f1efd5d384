"""What the template process relies on: warming up starts no thread, and a fork can do everything."""

from __future__ import annotations

import os
import subprocess
import sys

_TEMPLATE = """
import os, sys
from mmekit_handlers.pytorch import PyTorchHandler
import torch

def tasks():
    return len(os.listdir("/proc/self/task"))

PyTorchHandler.warm_up()
assert tasks() == 1, f"{tasks()} threads after warm_up"
assert not torch.cuda.is_initialized()
assert torch.get_num_threads() == 1 and torch.get_num_interop_threads() == 1

pid = os.fork()
if pid == 0:
    try:
        PyTorchHandler({"MMEKIT_PYTORCH_THREADS": "2"})
        assert torch.get_num_threads() == 2
        square = torch.rand(700, 700)
        with torch.inference_mode():
            product = torch.nn.Linear(700, 700)(square)
        assert product.shape == (700, 700)
        assert tasks() > 1, "the second thread was not used"
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_worker_forked_after_warm_up_predicts_with_two_threads() -> None:
    # With torch.export, which imports most: what starts a thread there would start one here.
    environ = os.environ | {"OMP_NUM_THREADS": "1", "MMEKIT_PYTORCH_WARM_EXPORT": "true"}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:mmekit_handlers", "-c", _TEMPLATE],
        env=environ, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
