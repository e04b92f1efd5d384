"""TLS below HTTP: what a client does that ends or begins its connection badly."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from collections.abc import Iterator

import pytest

from mmekit.http import Exchange, Response
from mmekit.http.tls import KeyFiles, server_context
from tests.http.support import LOOPS, PATIENCE_S, Client, RunningServer, Serve, serving, until
from tests.support.keys import identity


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    key, certificate = identity().write(tmp_path_factory.mktemp("keys"))
    return server_context(KeyFiles(private_key_file=key, certificate_file=certificate), "127.0.0.1")


@pytest.fixture(params=sorted(LOOPS))
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    if request.param == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("asyncio has no time limit for the end of TLS before Python 3.11")
    with serving(request.param) as start:
        yield start


def listen(server: RunningServer, context: ssl.SSLContext) -> tuple[str, int]:
    server.wait(server.server.start("127.0.0.1", 0, tls=context))
    address = server.server.addresses[-1]
    assert not isinstance(address, str)
    return address


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, PATIENCE_S)


def tls_client(address: tuple[str, int]) -> Client:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return Client(context.wrap_socket(connect(address)))


def test_a_handshake_that_does_not_end_is_cut(serve: Serve, context: ssl.SSLContext) -> None:
    address = listen(serve(read_timeout_s=0.7), context)
    with connect(address) as silent, connect(address) as half_way:
        half_way.sendall(b"\x16\x03\x01\x02\x00\x01")
        for client in (silent, half_way):
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1000):
                    pass
    with tls_client(address) as other:
        other.get()
        assert other.answer().status == 200


def test_bytes_that_are_no_tls_end_the_connection_and_nothing_else(
    serve: Serve, context: ssl.SSLContext
) -> None:
    address = listen(serve(), context)
    with tls_client(address) as neighbour:
        for junk in (
            b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\0" * 1000,
            b"\x16\x03\x01\xff\xff" + b"x" * 70000,
        ):
            with connect(address) as client, contextlib.suppress(ConnectionError):
                client.sendall(junk)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        neighbour.get()
        assert neighbour.answer().status == 200


def test_junk_within_an_established_connection_ends_it(serve: Serve, context: ssl.SSLContext) -> None:
    server = serve()
    address = listen(server, context)
    client = tls_client(address)
    client.get()
    assert client.answer().status == 200
    plain = socket.socket(fileno=client.sock.detach())
    plain.settimeout(PATIENCE_S)
    plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with contextlib.suppress(ConnectionResetError):
        while plain.recv(1000):
            pass
    plain.close()
    until(lambda: server.server.connections == 0)


def test_a_client_that_ignores_the_end_of_tls_is_let_go(serve: Serve, context: ssl.SSLContext) -> None:
    server = serve(linger_timeout_s=0.2)
    address = listen(server, context)
    with tls_client(address) as client:
        client.get(headers="Connection: close\r\n")
        assert client.answer().header("connection") == "close"
        # It does not read on, so it neither sees nor answers the server's close_notify.
        until(lambda: server.server.connections == 0)


def test_a_refused_body_is_read_on_over_tls_so_that_the_client_learns_why(
    serve: Serve, context: ssl.SSLContext
) -> None:
    address = listen(serve(max_body_bytes=1000), context)
    with tls_client(address) as client:
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.send(b"x" * 100_000)
        assert client.answer().status == 413
        assert client.is_closed()


def test_a_stop_closes_idle_tls_connections(serve: Serve, context: ssl.SSLContext) -> None:
    server = serve(linger_timeout_s=0.2)
    address = listen(server, context)
    with tls_client(address) as idle:
        idle.get()
        idle.answer()
        server.run(server.server.stop_accepting)
        assert server.wait(server.server.drain(PATIENCE_S))


def test_an_answer_larger_than_all_buffers_arrives_over_tls(serve: Serve, context: ssl.SSLContext) -> None:
    def echo(exchange: Exchange) -> None:
        exchange.respond(Response(200, (), exchange.request.body))

    address = listen(serve(echo, max_body_bytes=20_000_000), context)
    body = bytes(range(256)) * 40_000
    with tls_client(address) as client:
        client.post(body)
        assert client.answer().body == body
