"""Whatever bytes come, the server answers or closes, fails nowhere, and serves the next client."""

from __future__ import annotations

import contextlib
import errno
import socket

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.http.support import Client, RunningServer, Serve
from tests.http.test_server import echo

PIECES = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\n",
        b"POST /models/a%2Fb/invoke?x=y HTTP/1.1\r\n",
        b"HEAD / HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 5000\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"\r\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"\0",
        b"\n",
        b" ",
    ]
)
MESSAGES = st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=25).map(b"".join)


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> RunningServer:
    return serve_module(
        echo,
        max_body_bytes=1000,
        max_head_bytes=2000,
        max_pipelined=5,
        keep_alive_timeout_s=0.1,
        read_timeout_s=0.1,
        linger_timeout_s=0.1,
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=MESSAGES, cuts=st.lists(st.integers(0, 300), max_size=3), ends=st.booleans())
@example(message=b"HEAD / HTTP/1.0\r\n\r\nGET /a HTTP/1.1\r\n", cuts=[19], ends=True)
def test_any_bytes_give_an_answer_or_a_close(
    server: RunningServer, message: bytes, cuts: list[int], ends: bool
) -> None:
    with server.connect() as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        at = 0
        for cut in [*sorted(cuts), len(message)]:
            client.send(message[at:cut])
            at = max(at, cut)
            server.run(lambda: None)
        if ends:
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError as error:  # more than the last request came: answered by a reset
                if error.errno != errno.ENOTCONN:
                    raise
        received = client.rest()
        assert received == b"" or received.startswith(b"HTTP/1.1 ")
    # In the loop: the request is there before the connection is accepted, whose time begins then.
    with server.run(lambda: posted(server)) as client:
        assert client.answer().body == b"alive"
    assert server.errors == []


def posted(server: RunningServer) -> Client:
    client = server.connect()
    client.post(b"alive")
    return client
