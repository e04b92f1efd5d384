"""What is checked: a server that runs, an image, or a command; how each is started, watched and ended."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mmekit_toolkit.errors import ToolkitError

#: Seconds from a cut connection until the end of its server can be seen.
END_IS_SEEN_S = 1.0

_PAUSE_S = 0.05


class Form(Enum):
    """How the subject was named."""

    URL = "URL"
    IMAGE = "image"
    COMMAND = "command"


@dataclass(frozen=True)
class ModelsFolder:
    """The folder of all models, as it is here and as the server sees it."""

    here: Path
    there: str


@dataclass(frozen=True)
class Launch:
    """How to start the server. ``port_from_variable``: on another port, named by SAGEMAKER_BIND_TO_PORT."""

    port_from_variable: bool = False
    memory_limit_bytes: int | None = None
    models_read_only: bool = True


class NotStarted(ToolkitError):
    """Raised when the server was started and does not answer /ping; ``log`` has its last lines."""

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class ImageFacts:
    """What an image says of itself."""

    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()


class Running(ABC):
    """One server that has answered /ping; a context manager that ends it, by force if need be."""

    #: What started it, for a person to do the same.
    how_started: str
    #: Its address, such as ``http://127.0.0.1:8080``.
    base_url: str
    #: Whether it listens on the port that SAGEMAKER_BIND_TO_PORT named; None where that was not set.
    port_honoured: bool | None = None

    @abstractmethod
    def ended(self) -> str | None:
        """Return how the server ended, None while it runs."""

    def wait_end(self, timeout_s: float) -> str | None:
        """Wait for its end; return how it ended, None when it still runs then."""
        until = time.monotonic() + timeout_s
        while (how := self.ended()) is None and time.monotonic() < until:
            time.sleep(_PAUSE_S)
        return how

    @abstractmethod
    def last_lines(self, count: int = 30) -> tuple[str, ...]:
        """Return the end of its output, empty where nobody here has it."""

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM to its first process, as SageMaker does."""

    @abstractmethod
    def memory_bytes(self) -> int | None:
        """Return what its processes hold, page cache left out; None where it cannot be told."""

    @abstractmethod
    def room_bytes(self) -> int | None:
        """Return how much memory the kit may fill without harm to the machine; None where that is unknown."""

    @abstractmethod
    def close(self) -> None:
        """End what was started and remove what is left of it."""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Subject(ABC):
    """What is checked, as the person named it in ``name``."""

    form: Form
    name: str
    models: ModelsFolder
    #: What starts it, for a person to do the same.
    how_started: str

    @abstractmethod
    def start(self, launch: Launch, timeout_s: float) -> Running:
        """Return the server when it has answered /ping. Raises NotStarted, NotFound, NoEngine."""

    def image(self) -> ImageFacts:
        """Return what the image says of itself; only an image does."""
        raise NotImplementedError(f"a {self.form.value} has no labels")
