"""The kit's HTTP: answers as they came, and an end to everything."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmekit_toolkit.contract import probe
from mmekit_toolkit.contract.verdict import Skipped
from mmekit_toolkit.contract.wire import Answer, Deadline, Request, Server, Transcript, Unanswered

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(talk: Talk) -> Iterator[Server]:
    """Start a server of one connection; it has read the request's head when it talks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", Deadline(30))
        finally:
            thread.join(10)


_LIST = Request("GET", "/models")


def ask(talk: Talk, request: Request = _LIST, timeout_s: float = 5) -> Answer:
    with listening(talk) as server:
        return server.send(request, timeout_s)


def dripping(begin: bytes) -> Talk:
    """Return a talk that begins so and goes on until nobody listens, a byte at a time."""

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(begin)
            for _ in range(6000):
                connection.sendall(b"a")
                time.sleep(0.01)

    return talk


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "the connection was cut without an answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour",
            "the connection was cut after 4 bytes of the body",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP answer: BadStatusLine SSH-2.0-OpenSSH_9.2"),
    ],
)
def test_what_is_no_complete_answer_is_told(said: bytes, why: str) -> None:
    with pytest.raises(Unanswered) as raised:
        ask(lambda connection: connection.sendall(said))
    assert raised.value.why.strip() == why


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_drips_ends_at_the_deadline(begin: bytes) -> None:
    began = time.monotonic()
    with pytest.raises(Unanswered) as raised:
        ask(dripping(begin), timeout_s=0.5)
    assert raised.value.why == "no complete answer within 0.5 s"
    assert time.monotonic() - began < 30


def test_an_answer_that_ends_in_a_reset_leaves_no_connection() -> None:
    def resets(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nab")
        time.sleep(0.2)  # its head is read by now: the body fails
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    before = _open_sockets()
    with pytest.raises(Unanswered) as raised:
        ask(resets)
    assert raised.value.why  # held, as by a check's verdict: with it are the frames of the exchange
    assert not _open_sockets() - before


def _open_sockets() -> set[str]:
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("socket:")}


def test_a_check_whose_time_is_over_is_skipped_since_nothing_is_known() -> None:
    server = Server("http://127.0.0.1:9", Deadline(0))
    with pytest.raises(Skipped, match="the server takes long: the check's 0 s were over before GET /ping"):
        server.ping()


class _AlmostOver(Deadline):
    left_s = 0.01


def test_a_request_that_is_sent_in_time_is_not_cut_short_by_those_before_it() -> None:
    def late(connection: socket.socket) -> None:
        time.sleep(0.2)
        connection.sendall(b"HTTP/1.1 204 No\r\n\r\n")

    with listening(late) as listener:
        server = Server(listener.base_url, _AlmostOver(30))
        assert server.list().status == 204


_ASKS = """
import os, sys
from mmekit_toolkit.contract.wire import Deadline, Server
server = Server(sys.argv[1], Deadline(30))
print(os.getpid(), flush=True)
server.ping(2.0)
"""


def test_time_in_which_the_machine_stands_still_is_not_the_servers() -> None:
    def stands_still(connection: socket.socket) -> None:
        assert kit.stdout
        pid = int(kit.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)  # the kit is sooner than the server
        connection.sendall(b"HTTP/1.1 204 No\r\n\r\n")

    with listening(stands_still) as listener:
        command = [sys.executable, "-c", _ASKS, listener.base_url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as kit:
            assert kit.wait(60) == 0


def test_the_same_request_again_and_again_is_one_line_of_the_transcript() -> None:
    transcript = Transcript()
    for curl in ("load", "invoke", "invoke", "invoke", "list"):
        transcript.add(curl, f"{curl} → 200")
    assert transcript.before("list") == ("load → 200", "invoke → 200")


def test_a_refusal_before_the_body_is_read_is_the_answer() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    answer = ask(refuse, Request("POST", "/models/a/invoke", {}, b"\0" * 6_291_456))
    assert answer.status == 413


def test_an_exchange_can_be_repeated_with_curl() -> None:
    request = Request("POST", "/models", {"Content-Type": "application/json"}, b'{"url": "it\'s"}')
    assert request.curl("http://h:1") == (
        "curl -i -X POST http://h:1/models -H 'Content-Type: application/json' "
        """--data-binary '{"url": "it'"'"'s"}'"""
    )


@pytest.mark.parametrize("body", [b"\x93NUMPY\x01", b"\0", b"@file"])
def test_a_body_that_no_command_line_can_have_is_named(body: bytes) -> None:
    curl = Request("POST", "/models/a/invoke", {}, body).curl("http://h:1")
    assert f"--data-binary @body  # {len(body)} bytes: " in curl


def test_names_are_escaped_in_paths() -> None:
    with listening(lambda connection: connection.sendall(b"HTTP/1.1 204 No\r\n\r\n")) as server:
        assert server.get("a/b?c").request.path == "/models/a%2Fb%3Fc"


# --- the kit's own model ---------------------------------------------------------------------------


def test_the_probe_model_is_python_3_6() -> None:
    source = (Path(probe.__file__).parent / "service.py").read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]


def test_a_question_is_padded_to_the_byte() -> None:
    assert len(probe.facts(6_291_456)) == 6_291_456
    assert probe.facts() == b'{"probe": "facts"}'
