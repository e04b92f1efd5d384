"""A real `mmekit serve` in a process of its own, and a small client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmekit.process_table import family, read_table

MODELS = Path(__file__).parent.parent / "models"
IMAGE_CODE = Path(__file__).parent / "image_code"
COMMAND = Path(sysconfig.get_path("scripts")) / "mmekit"

#: Variables of the surrounding shell that would change what a server does.
_FOREIGN = ("SAGEMAKER_", "MMEKIT_", "OMP_", "MAX_CONTENT_LENGTH")


def until(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "the condition") -> Any:
    """Poll until the condition is true and return its value; fails the test after a while."""
    deadline = time.monotonic() + timeout_s
    while True:
        is_last = time.monotonic() >= deadline  # whatever held this process up: it looks once more
        if value := condition():
            return value
        if is_last:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.01)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error answer, which must have the contract's three fields."""
        error = self.json
        assert set(error) == {"code", "type", "message"}, error
        assert error["code"] == self.status
        return str(error["message"])


class Server:
    """`mmekit serve` on a free port of loopback; a context manager that leaves nothing behind."""

    def __init__(self, *options: str, **environ: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        self.environ = {
            **inherited,
            "SAGEMAKER_MULTI_MODEL": "true",
            "SAGEMAKER_BIND_TO_PORT": "0",
            "MMEKIT_HOST": "127.0.0.1",
            "MMEKIT_PRELOAD": "none",
            **environ,
        }
        self.options = options
        self.port = 0
        #: Where the two connectors listen: http://HOST:PORT, https://HOST:PORT or unix:/PATH.
        self.addresses: dict[str, str] = {}
        #: The log so far, line by line.
        self.raw: list[str] = []
        self._lines: list[dict[str, Any]] = []
        self._parsed = 0
        self._parsing = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self._pool = ThreadPoolExecutor(64)

    # --- life --------------------------------------------------------------------------------

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, ready: bool = True, wrap: Callable[[], None] | None = None) -> Server:
        self.process = subprocess.Popen(
            [COMMAND, "serve", *self.options],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=wrap,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.addresses = until(self._listening, 30, "the server listening")
        port = self.addresses["inference"].rpartition(":")[2]
        self.port = int(port) if port.isdigit() else 0
        if ready:
            until(lambda: self.get("/ping").status == 200, 60, "/ping answering 200")
        return self

    def _read_log(self) -> None:
        assert self.process
        assert self.process.stderr
        for line in self.process.stderr:
            self.raw.append(line)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Those lines of ``raw`` that are JSON; read when asked for, so that neither is behind the other."""
        with self._parsing:
            for line in self.raw[self._parsed :]:
                self._parsed += 1
                with contextlib.suppress(ValueError):
                    self._lines.append(json.loads(line))
        return self._lines

    def _listening(self) -> dict[str, str]:
        assert self.process
        has_ended = self.process.poll() is not None
        if has_ended:
            self._reader.join(30)  # it may have listened for a moment, and said so
        found = {}
        for line in self.raw:  # whatever the form of the log
            if match := re.search(r'\bListening on (\S+?)(?: for (\w+))?\.(?=["\s])', line):
                address = match[1] if match[1].startswith(("https:", "unix:")) else f"http://{match[1]}"
                found |= dict.fromkeys([match[2]] if match[2] else ["inference", "management"], address)
        assert len(found) == 2 or not has_ended, "".join(self.raw)
        return found if len(found) == 2 else {}

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 40) -> int:
        assert self.process
        code = self.process.wait(timeout_s)
        self._reader.join(30)
        return code

    def close(self) -> None:
        """Stop, and fail if that takes long or leaves a process of the server's behind."""
        assert self.process
        self._pool.shutdown(wait=False, cancel_futures=True)
        known = self.family()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            time.sleep(0)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGTERM)  # impatient: tests may leave calls behind
        try:
            self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(30)
            assert self.process.stderr
            self.process.stderr.close()
        until(lambda: not [pid for pid in known if _alive(pid)], 20, f"all of {known} ending")

    def family(self) -> set[int]:
        """The server's process, all below it, and all of its session."""
        return {row.pid for row in family(read_table(), self.pid)}

    def template_pid(self) -> int:
        """The template's process: the oldest that runs the template module. 0: there is none."""
        found = {}
        for pid in self.family():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                # Workers are forks of it in sessions of their own, but for their first moments.
                if b"mmekit.worker.template" in command and os.getpgid(pid) == self.pid:
                    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
                    found[pid] = int(started)
        return min(found, key=found.__getitem__, default=0)

    # --- requests ------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60,
        on: str = "inference",
    ) -> Answer:
        connection = _connection(self.addresses.get(on, f"http://127.0.0.1:{self.port}"), timeout_s)
        started = time.monotonic()
        try:
            data = body.encode() if isinstance(body, str) else body
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            content = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, content, time.monotonic() - started)
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def load(self, name: str, url: Path | str, timeout_s: float = 60, **parameters: Any) -> Answer:
        body = json.dumps({"model_name": name, "url": str(url), **parameters})
        headers = {"Content-Type": "application/json"}
        return self.request("POST", "/models", body, headers, timeout_s, on="management")

    def unload(self, name: str) -> Answer:
        return self.request("DELETE", f"/models/{name}", on="management")

    def invoke(
        self,
        name: str,
        body: bytes | str = b"",
        content_type: str | None = None,
        timeout_s: float = 60,
        **headers: str,
    ) -> Answer:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        if content_type:
            sent["Content-Type"] = content_type
        return self.request("POST", f"/models/{name}/invoke", body, sent, timeout_s)

    def later(self, call: Callable[..., Answer], *args: Any, **kwargs: Any) -> Future[Answer]:
        """Make a call in another thread."""
        return self._pool.submit(call, *args, **kwargs)

    def models(self) -> list[str]:
        answer = self.request("GET", "/models", on="management")
        return [model["modelName"] for model in answer.json["models"]]

    def waiting(self, name: str) -> int:
        """How many requests wait for a model, those of clients that left included while nobody looks."""
        pattern = rf'^mmekit_queue_requests\{{model="{re.escape(name)}"\}} (\d+)'
        found = re.search(pattern, self.get("/metrics").text, re.MULTILINE)
        return int(found[1]) if found else 0

    def facts(self, name: str) -> dict[str, Any]:
        """What the image's test handler says of the process that holds a model."""
        answer = self.invoke(name, "facts")
        assert answer.status == 200, answer.body
        facts: dict[str, Any] = answer.json
        return facts

    def logged(self, text: str) -> list[dict[str, Any]]:
        """The lines of the log so far that have this text."""
        return [line for line in self.lines if text in str(line["message"])]

    def told(self, text: str) -> list[dict[str, Any]]:
        """The same, once there are any: the log is written after what it tells of."""
        lines: list[dict[str, Any]] = until(lambda: self.logged(text), what=f"the log telling {text!r}")
        return lines


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(address: str, timeout_s: float) -> http.client.HTTPConnection:
    """A client of http://HOST:PORT, https://HOST:PORT (whose certificate is not verified) or unix:/PATH."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return _UnixConnection(rest, timeout_s)
    host, _, port = rest.removeprefix("//").rpartition(":")
    if scheme == "http":
        return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=timeout_s, context=context)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def image_environ(**environ: str) -> dict[str, str]:
    """Settings of a server whose image brings tests/support/image_code/image_handler.py."""
    return {
        "SAGEMAKER_HANDLER": "image_handler:handle",
        "PYTHONPATH": os.pathsep.join([str(IMAGE_CODE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        **environ,
    }


def plain_model(folder: Path, name: str = "plain") -> Path:
    """A model folder with a file and no code: the image's handler serves it, in a shared worker."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "weights.dat").write_bytes(b"0" * 100)
    return path


@contextlib.contextmanager
def image_server(folder: Path, models: list[str], *options: str, **environ: str) -> Iterator[Server]:
    """A server with the test image's handler and these models loaded."""
    with Server(*options, **image_environ(**environ)) as server:
        for name in models:
            answer = server.load(name, plain_model(folder, name))
            assert answer.status == 200, answer.body
        yield server


__all__ = [
    "IMAGE_CODE",
    "MODELS",
    "Answer",
    "Server",
    "image_environ",
    "image_server",
    "plain_model",
    "until",
]
