"""A real registry (CNCF Distribution) on loopback, and a proxy that breaks connections to it on demand."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from tests.support.mms import free_port

#: The registry's program, as Debian's package docker-registry and upstream's own releases name it.
PROGRAM = shutil.which("docker-registry") or shutil.which("registry")

_CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {state}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: registry, path: {state}/htpasswd}}}}
"""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: As ECR answers when the twelve hours are over.
EXPIRED = (
    b'{"errors": [{"code": "DENIED", "message": '
    b'"Your authorization token has expired. Reauthenticate and try again."}]}'
)


class Registry:
    """A registry that asks for ECR's kind of login; a context manager that skips where none is installed."""

    def __init__(self, state: Path, password: str) -> None:
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self._password = password
        self._state = state
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Registry:
        if PROGRAM is None:
            pytest.skip("no registry is installed (Debian: apt install docker-registry)")
        hashed = bcrypt.hashpw(self._password.encode(), bcrypt.gensalt(4)).decode()
        (self._state / "htpasswd").write_text(f"AWS:{hashed}\n")
        config, log = self._state / "config.yml", self._state / "log"
        config.write_text(_CONFIG.format(state=self._state, port=self.port))
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", config], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        deadline = time.monotonic() + 20
        while not answers(self.port):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"the registry does not answer: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def digest(self, repository: str, tag: str) -> str:
        """Return the digest that the registry itself gives for a tag."""
        login = b64encode(f"AWS:{self._password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2/{repository}/manifests/{tag}",
            method="HEAD",
            headers={"Accept": MANIFEST, "Authorization": f"Basic {login}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])


#: Is given what a client has sent on a connection so far and its next bytes; returns what to do with them.
Rule = Callable[[int, bytes], "bytes | None"]
#: Pass them on.
PASS = b""
#: Break the connection.
CUT = None
#: Be gone: break all connections and refuse new ones.
GONE = b"\0"


class Proxy:
    """Passes bytes on to a port; a context manager. A rule may break connections or answer in place."""

    def __init__(self, port: int, rule: Rule) -> None:
        self._target = port
        self._rule = rule
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"localhost:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._closed = False
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def close(self) -> None:
        """Be gone; may be called again."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._closed = True
            for each in self._open:
                _break(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open += [client, server]
                if self._closed:  # since it was accepted
                    _break(client)
                    _break(server)
                    return
                for target in (self._up, self._down):
                    thread = threading.Thread(target=target, args=(client, server))
                    self._threads.append(thread)
                    thread.start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := client.recv(16384):
                answer = self._rule(sent, data)
                if answer is GONE:
                    self.close()
                if answer in (CUT, GONE):
                    break
                if answer:
                    client.sendall(answer)
                    break
                server.sendall(data)
                sent += len(data)
        _break(client)
        _break(server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(16384):
                client.sendall(data)
        _break(client)


def writes_manifest(data: bytes) -> bool:
    """Say whether these bytes begin the last request of a push."""
    line = data.partition(b"\r\n")[0]
    return line.startswith(b"PUT /v2/") and b"/manifests/" in line


def times(number: int, matches: Callable[[int, bytes], bool], answer: bytes | None = CUT) -> Rule:
    """Return the rule that acts on what matches, this many times."""
    left = [number]

    def rule(sent: int, data: bytes) -> bytes | None:
        if left[0] and matches(sent, data):
            left[0] -= 1
            return answer
        return PASS

    return rule


def http_answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
