"""HTTP with the server under test: requests as SageMaker makes them, each with a connection and a deadline.

What a server answers is kept as it came. What is no complete answer in time is Unanswered, never a hang.
"""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from mmekit_toolkit.contract.verdict import Broken, Skipped
from mmekit_toolkit.contract.watch import Watch

#: What the platform gives an invocation (AWS: your-algorithms-inference-code).
INVOKE_TIMEOUT_S = 60.0
#: What the platform gives a load (AWS: invoke-multi-model-endpoint) and an unload (Triton: sagemaker_server).
LOAD_TIMEOUT_S = 360.0
#: What the platform gives an attempt of /ping (AWS: your-algorithms-inference-code).
PING_TIMEOUT_S = 2.0

#: Seconds that a socket waits beyond a request's time, which a `Watch` ends.
_SPARE_S = 60.0

#: Characters of a body that a report shows.
_SHOWN = 600
#: Requests that a transcript keeps; the last ones lead to the failure.
_KEPT = 12


@dataclass(frozen=True)
class Request:
    """One request; ``headers`` are sent as they are, with Host and Content-Length added."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def curl(self, base_url: str) -> str:
        """Return the command line that sends the same."""
        words = ["curl", "-i", "-X", self.method, base_url + self.path]
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        if self.body is None:
            return shlex.join(words)
        if len(self.body) > _SHOWN or not _is_plain(self.body):
            content = f"{len(self.body)} bytes: {_shown(self.body[:60])}"
            more = "…" if len(self.body) > 60 else ""
            return f"{shlex.join(words)} --data-binary @body  # {content}{more}"
        return shlex.join([*words, "--data-binary", self.body.decode()])

    def __str__(self) -> str:
        line = f"{self.method} {self.path}"
        return f"{line} {_shown(self.body[:200])}" if self.body else line


@dataclass(frozen=True)
class Answer:
    """A complete answer; header names are in lower case, ``took_s`` is a `Watch`'s until its last byte."""

    request: Request
    curl: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    @property
    def json(self) -> Any:  # Any: whatever the server has sent
        """The body as JSON; None for what is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 2xx."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        kind = f", {self.headers['content-type']}" if "content-type" in self.headers else ""
        text = f"{self.status}{kind}, after {self.took_s:.3f} s"
        if not self.body:
            return f"{text}, no body"
        more = f"… ({len(self.body)} bytes)" if len(self.body) > _SHOWN else ""
        return f"{text}: {_shown(self.body[:_SHOWN])}{more}"

    def expect(self, holds: bool, expected: str) -> None:
        """Raise Broken with this exchange unless the condition holds."""
        if not holds:
            raise Broken(self.curl, expected, str(self))

    def expect_status(self, status: int, why: str = "") -> None:
        """Raise Broken unless the answer has that status; ``why`` follows it in the report."""
        self.expect(self.status == status, f"{status} {why}".strip())


class Unanswered(Exception):
    """Raised for a request without a complete answer: nobody listens, it is cut off, it takes too long."""

    def __init__(self, request: Request, curl: str, why: str, took_s: float) -> None:
        super().__init__(f"{request.method} {request.path}: {why}")
        self.request = request
        self.curl = curl
        self.why = why
        self.took_s = took_s

    def broken(self, expected: str) -> Broken:
        """Return what a clause raises when an answer was its rule."""
        return Broken(self.curl, expected, f"{self.why}, after {self.took_s:.3f} s")


class Deadline:
    """When a check must be over, on the clock of ``time.monotonic``."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())


class Transcript:
    """The last requests of a check, for the report of a failure."""

    def __init__(self) -> None:
        self._lines: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        self._count = 0
        #: Whether a request got no complete answer.
        self.unanswered = False

    def add(self, curl: str, line: str) -> None:
        """Note a request with what came; the same again, as of a model that is waited for, is one line."""
        if not self._lines or self._lines[-1] != (curl, line):
            self._lines.append((curl, line))
            self._count += 1

    def before(self, curl: str) -> tuple[str, ...]:
        """Return the lines that came before the last request with that command line."""
        entries = list(self._lines)
        positions = [index for index, entry in enumerate(entries) if entry[0] == curl]
        lines = [line for _, line in (entries[: positions[-1]] if positions else entries)]
        left_out = self._count - len(entries)
        return (f"({left_out} requests before)", *lines) if left_out else tuple(lines)


class Server:
    """The server at one address, within one check's deadline."""

    def __init__(self, base_url: str, deadline: Deadline, transcript: Transcript | None = None) -> None:
        self.base_url = base_url
        self.transcript = transcript or Transcript()
        self._deadline = deadline

    # --- the model API (AWS: mms-container-apis)

    def ping(self, timeout_s: float = PING_TIMEOUT_S) -> Answer:
        """Ask ``GET /ping``."""
        return self.send(Request("GET", "/ping"), timeout_s)

    def load(self, name: str, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask ``POST /models``."""
        body = json.dumps({"model_name": name, "url": url}).encode()
        types = {"Content-Type": "application/json", "Accept": "application/json"}
        return self.send(Request("POST", "/models", {**types, **(headers or {})}, body), LOAD_TIMEOUT_S)

    def list(self, token: str | None = None) -> Answer:
        """Ask ``GET /models`` for the first page, or for the one that a token names."""
        query = "" if token is None else f"?next_page_token={quote(token, safe='')}"
        return self.send(Request("GET", f"/models{query}", {"Accept": "application/json"}))

    def get(self, name: str) -> Answer:
        """Ask ``GET /models/{name}``."""
        return self.send(Request("GET", f"/models/{quote(name, safe='')}", {"Accept": "application/json"}))

    def unload(self, name: str, timeout_s: float = LOAD_TIMEOUT_S) -> Answer:
        """Ask ``DELETE /models/{name}``."""
        return self.send(Request("DELETE", f"/models/{quote(name, safe='')}"), timeout_s)

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Ask ``POST /models/{name}/invoke``."""
        return self.send(Request("POST", f"/models/{quote(name, safe='')}/invoke", headers, body))

    # --- bytes

    def send(self, request: Request, timeout_s: float = INVOKE_TIMEOUT_S) -> Answer:
        """Send a request and read the answer to its end. Raises Unanswered.

        Raises Skipped when the check's time is over. What is sent before has a time of its own: one that is
        cut short by those before it would tell nothing of the server.
        """
        curl = request.curl(self.base_url)
        check_s = self._deadline.timeout_s
        if not self._deadline.left_s:
            raise Skipped(
                f"the server takes long: the check's {check_s:g} s were over before {request.method} "
                f"{request.path} could be sent"
            )
        timeout_s = min(timeout_s, check_s)
        cut = _Cut()
        watch = Watch(timeout_s, cut)
        try:
            with watch:
                status, headers, body = _exchange(self.base_url, request, timeout_s, cut)
        except (OSError, http.client.HTTPException) as error:
            took_s = watch.lived_s
            is_late = isinstance(error, TimeoutError) or took_s >= timeout_s
            why = f"no complete answer within {timeout_s:.3g} s" if is_late else _plain(error)
            self.transcript.unanswered = True
            self.transcript.add(curl, f"{request} → {why}")
            raise Unanswered(request, curl, why, took_s) from error
        answer = Answer(request, curl, status, headers, body, watch.lived_s)
        self.transcript.add(curl, f"{request} → {answer.status} {_shown(answer.body[:100])}".rstrip())
        return answer

    def connect_s(self, timeout_s: float = 10.0) -> float:
        """Return how many seconds a TCP connection takes to be accepted. Raises OSError."""
        timeout_s = min(timeout_s, self._deadline.left_s or 0.001)
        with Watch() as watch:
            began_s = watch.lived_s  # the start of the watch is not the server's
            with socket.create_connection(address_of(self.base_url), timeout_s):
                return watch.lived_s - began_s


def address_of(base_url: str) -> tuple[str, int]:
    """Return host and port of an http(s) URL."""
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class _Cut:
    """Cuts the connection of a request whose time is over."""

    def __init__(self) -> None:
        self.done = False
        self._socket: socket.socket | None = None

    def __call__(self) -> None:
        self.done = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def holds(self, connected: socket.socket) -> None:
        """Take the socket itself, since a connection forgets it where an answer ends with it."""
        self._socket = connected
        self.check()

    def check(self) -> None:
        """Raise TimeoutError where the time is over: what was cut may look complete."""
        if self.done:
            raise TimeoutError


def _exchange(
    base_url: str, request: Request, timeout_s: float, cut: _Cut
) -> tuple[int, dict[str, str], bytes]:
    kind = http.client.HTTPSConnection if base_url.startswith("https:") else http.client.HTTPConnection
    connection = kind(*address_of(base_url), timeout=timeout_s)
    connection.connect()
    try:
        # A socket's own timeout begins anew with each piece: a server that drips would never be over. And it
        # goes on while this machine stands still.
        connection.sock.settimeout(timeout_s + _SPARE_S)
        cut.holds(connection.sock)
        connection.putrequest(request.method, request.path, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        if request.body is not None:
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders()
        try:
            if request.body:
                connection.send(request.body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before it was read to its end: the answer says why, if there is one
        with connection.getresponse() as reply:  # it has the socket where the answer ends with the connection
            headers = {name.lower(): value for name, value in reply.getheaders()}
            body = reply.read()
        cut.check()
        return reply.status, headers, body
    finally:
        connection.close()


def _plain(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        return "the connection was cut without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection was cut after {len(error.partial)} bytes of the body"
    if isinstance(error, http.client.HTTPException):
        return f"no HTTP answer: {type(error).__name__} {error}"
    return str(error)


def _is_plain(data: bytes) -> bool:
    """Return whether bytes can stand in a command line, and would not be taken for a file's name there."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return not text.startswith("@") and all(
        character.isprintable() or character in "\n\t" for character in text
    )


def _shown(data: bytes) -> str:
    """Return bytes as one line of text."""
    return " ".join(data.decode("utf-8", "backslashreplace").split())
