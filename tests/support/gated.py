"""Models that wait for a file: the test says when a load or a call goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.looking import EVALUATE, code_model
from tests.support.server import until

_WAIT = """
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return path
"""

_GATE = """
def model_fn(model_dir):
    gate = {gate!r}
    with open(gate + ".begun", "a") as begun:
        begun.write("x")
    wait(gate)
    if open(gate).read() == "fail":
        raise ValueError("the gate said no")
    return model_dir
"""


#: Each of its workers ends as soon as the next load begins, and that load ends when it has.
_ENDS_FOR_THE_NEXT = """
import threading

def ends_for_the_next(order):
    with open(order, "a") as file:
        file.write(f"{{os.getpid()}} ")
    def last():
        return open(order).read().split()[-1]
    def follow():
        while last() == str(os.getpid()):
            time.sleep(0.005)
        os._exit(3)
    for pid in open(order).read().split()[:-1]:
        while os.path.exists(f"/proc/{{pid}}"):
            time.sleep(0.005)
    threading.Thread(target=follow, daemon=True).start()

def model_fn(model_dir):
    ends_for_the_next({order!r})
    return model_dir
"""


def fleeting_model(folder: Path, name: str) -> Path:
    """Make a model that never has two workers: one ends with code 3 when the next loads it."""
    source = EVALUATE.replace("def model_fn", "def unused")
    return code_model(folder, name, source + _ENDS_FOR_THE_NEXT.format(order=str(folder / f"{name}.order")))


class Gate:
    """A file that loads wait for; ``begun`` counts those that did."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def begun(self) -> int:
        counted = Path(f"{self.path}.begun")
        return len(counted.read_text()) if counted.exists() else 0

    def wait_for_load(self, number: int = 1) -> None:
        until(lambda: self.begun >= number, what=f"load {number} having begun")

    def open(self) -> None:
        self._say("")

    def fail(self) -> None:
        """Let the loads raise."""
        self._say("fail")

    def close(self) -> None:
        self.path.unlink()

    def _say(self, text: str) -> None:
        # Whole at once: a load may look at any moment.
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)


def waiting_model(folder: Path, name: str) -> Path:
    """Make a model whose calls may be ``wait('PATH')``: they answer when that file is there."""
    return code_model(folder, name, EVALUATE + _WAIT)


def gated_model(folder: Path, name: str) -> tuple[Path, Gate]:
    """Make a model whose loads wait for its gate; its calls may wait too."""
    gate = Gate(folder / f"{name}.gate")
    source = EVALUATE.replace("def model_fn", "def unused") + _WAIT + _GATE.format(gate=str(gate.path))
    return code_model(folder, name, source), gate


def workers(server: Any, name: str) -> list[str]:
    """Return the ids of the workers that hold a model and stay."""
    described = server.get(f"/models/{name}").json["workers"]
    return [worker["id"] for worker in described if worker["status"] == "READY"]


__all__ = ["Gate", "fleeting_model", "gated_model", "waiting_model", "workers"]
