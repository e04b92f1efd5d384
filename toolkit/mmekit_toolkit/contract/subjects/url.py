"""A server that runs already: nothing is started, nothing is ended."""

from __future__ import annotations

from mmekit_toolkit.contract.subjects import Form, Launch, ModelsFolder, Running, Subject
from mmekit_toolkit.contract.wire import Deadline, Server
from mmekit_toolkit.errors import ToolkitError

#: Seconds in which the server must accept a connection when the kit begins.
_CONNECT_S = 10.0


class UrlSubject(Subject):
    """A server at an address; it must see the models' folder."""

    form = Form.URL

    def __init__(self, url: str, models: ModelsFolder) -> None:
        self.name = url.rstrip("/")
        self.models = models
        self.how_started = "a server that runs already"

    def start(self, launch: Launch, timeout_s: float) -> Running:
        """Return the server if it listens. Raises ToolkitError otherwise."""
        running = _Listening(self.name)
        if (how := running.ended()) is not None:
            raise ToolkitError(f"{self.name} {how}. Expected a model server that runs there.")
        return running


class _Listening(Running):
    def __init__(self, url: str) -> None:
        self.base_url = url
        self.how_started = "a server that runs already"

    def ended(self) -> str | None:
        try:
            Server(self.base_url, Deadline(_CONNECT_S)).connect_s()
        except OSError as error:
            return f"accepts no connection ({error})"
        return None

    def last_lines(self, count: int = 30) -> tuple[str, ...]:
        return ()

    def terminate(self) -> None:
        raise NotImplementedError("a server that runs is not ended")

    def memory_bytes(self) -> int | None:
        return None

    def room_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass
