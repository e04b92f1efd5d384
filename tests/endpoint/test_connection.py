"""The connection to a container: bytes over real sockets, whole and byte by byte, good and bad."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from mmekit_endpoint.fleet.connection import Answer, NoAnswer, Request
from mmekit_endpoint.fleet.connections import Connections

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


class Served:
    """A container on loopback that does with each connection what it is told."""

    def __init__(self, serve: Serve, max_bytes: int = 1000) -> None:
        self._serve = serve
        self.connections = 0
        self.container = Connections(max_bytes, max_connections=4)

    async def __aenter__(self) -> Connections:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.container.reach(self._server.sockets[0].getsockname())
        return self.container

    async def __aexit__(self, *_: object) -> None:
        self.container.close()
        self._server.close()
        await asyncio.sleep(0.01)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answering(raw: bytes, *, piece: int = 10**9, close: bool = False) -> Serve:
    """Answer each request with these bytes, so many at a time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for start in range(0, len(raw), piece):
                writer.write(raw[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return serve


GOOD = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        200,
        b"hello",
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "error": (b"HTTP/1.1 507 Insufficient\r\ncontent-length: 4\r\nX-A: b\r\n\r\nfull", 507, b"full"),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
}


@pytest.mark.parametrize("piece", [1, 3, 10**9])
@pytest.mark.parametrize("name", GOOD)
def test_answers_are_read_however_they_are_cut(name: str, piece: int) -> None:
    raw, status, body = GOOD[name]

    async def work() -> None:
        served = Served(answering(raw, piece=piece))
        async with served as container:
            for _ in range(3):
                answer = await container.ask("POST", "/x", b"body")
                assert (answer.status, answer.body) == (status, body)
            assert served.connections == 1, "a connection is kept"

    run(work())


def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    async def work() -> None:
        served = Served(answering(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True))
        async with served as container:
            for number in (1, 2):
                assert (await container.ask("GET", "/")).body == b"until the end"
                assert served.connections == number

    run(work())


def test_connection_close_is_honoured() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    async def work() -> None:
        served = Served(answering(raw, close=True))
        async with served as container:
            for _ in range(3):
                assert (await container.ask("GET", "/")).body == b"ok"
            assert served.connections == 3

    run(work())


def test_an_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    async def work() -> None:
        async with Served(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")) as container:
            answer = await container.ask("HEAD", "/object")
            assert answer.headers[b"content-length"] == b"5000"
            assert answer.body == b""

    run(work())


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"this is not HTTP\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort", "closed the connection"),
        (b"HTTP/1.1 200", "closed the connection"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, "more than 1000 bytes"),
    ],
)
def test_what_is_no_answer_is_said(raw: bytes, text: str) -> None:
    async def work() -> None:
        async with Served(answering(raw, close=True)) as container:
            with pytest.raises(NoAnswer, match=text):
                await container.ask("POST", "/x")

    run(work())


def test_a_request_is_sent_once_though_its_connection_breaks() -> None:
    """It may have been run: who died of it must not get it again."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        for number in range(2):
            await read_request(reader)
            requests += 1
            if number == 0:
                writer.write(GOOD["length"][0])

    async def work() -> None:
        async with Served(serve) as container:
            await container.ask("POST", "/x")
            with pytest.raises(NoAnswer, match="closed the connection"):
                await container.ask("POST", "/x")
            assert requests == 2

    run(work())


def test_a_connection_that_was_free_for_long_is_not_used_again() -> None:
    """Its end may be on the way (RFC 9112, 9.3.1)."""

    async def work() -> None:
        served = Served(answering(GOOD["length"][0]))
        async with served as container:
            for pause_s in (0, 0.01, 1.2):
                await asyncio.sleep(pause_s)
                assert (await container.ask("POST", "/x")).body == b"hello"
            assert served.connections == 2

    run(work())


def test_nothing_that_listens_is_said_at_once() -> None:
    async def work() -> None:
        container = Connections(1000)
        container.reach(("127.0.0.1", 1))
        with pytest.raises(NoAnswer, match="nothing listens on its port"):
            await container.ask("GET", "/")
        container.close()

    run(work())


def test_a_late_answer_is_given_up_and_does_not_reach_the_next_caller() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if b"/slow" in request:
                await asyncio.sleep(0.3)
            text = request.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    async def work() -> None:
        async with Served(serve) as container:
            with pytest.raises(NoAnswer, match=r"did not answer GET /slow within 0\.1 s"):
                await container.ask("GET", "/slow", timeout_s=0.1)
            for number in range(10):
                path = f"/fast/{number}"
                assert (await container.ask("GET", path)).body == path.encode()
                await asyncio.sleep(0.05)

    run(work())


def test_more_requests_than_connections_wait_their_turn() -> None:
    active = most = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal active, most
        while True:
            await read_request(reader)
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.01)
            active -= 1
            writer.write(GOOD["length"][0])

    async def work() -> None:
        served = Served(serve)
        async with served as container:
            answers = await asyncio.gather(*(container.ask("POST", "/x") for _ in range(50)))
            assert [answer.body for answer in answers] == [b"hello"] * 50
        assert served.connections <= 4
        assert most == 4

    run(work())


def test_requests_that_wait_go_on_when_connections_break() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.02)  # then the connection ends without an answer

    async def work() -> None:
        async with Served(serve) as container:
            calls = (container.ask("POST", "/x", timeout_s=30) for _ in range(10))
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all("closed the connection" in str(outcome) for outcome in outcomes)

    run(work())


def test_closing_ends_what_waits_and_what_is_sent() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work() -> None:
        async with Served(serve) as container:
            calls = [asyncio.ensure_future(container.ask("POST", "/x")) for _ in range(10)]
            await asyncio.sleep(0.05)
            container.close()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, NoAnswer) for outcome in outcomes)

    run(work())


def test_a_streaming_answer_comes_in_parts_and_can_be_paused() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"one", b"two"):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")

    async def work() -> None:
        async with Served(serve) as container:
            heads: list[Answer] = []
            parts: list[bytes] = []
            ended: asyncio.Future[Answer | NoAnswer] = asyncio.get_running_loop().create_future()

            def on_part(data: bytes) -> None:
                parts.append(data)
                request.pause()
                asyncio.get_running_loop().call_later(0.05, request.resume)

            request = Request(container.head("POST", "/x"), b"", ended.set_result, heads.append, on_part)
            container.send(request)
            outcome = await ended
            assert isinstance(outcome, Answer)
            assert [head.status for head in heads] == [200]
            assert b"".join(parts) == b"onetwo"

    run(work())
