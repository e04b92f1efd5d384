"""What a client and an application may rely on, on both event loops."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from pathlib import Path

import pytest

from mmekit.http import BodyBudget, Exchange, Response
from mmekit.http.connection import Connection
from mmekit.http.unix import UnixSocket
from tests.http.support import Closed, Holding, Serve, answer_ok, until

SHORT = {"read_timeout_s": 0.3, "write_timeout_s": 0.4, "linger_timeout_s": 0.2}


def echo(exchange: Exchange) -> None:
    exchange.respond(Response(200, (), bytes(exchange.request.body)))


# --- answers ----------------------------------------------------------------------------------------


def test_an_answer_has_length_and_date_and_keeps_the_connection(serve: Serve) -> None:
    with serve().connect() as client:
        for _ in range(3):
            client.post(b"x" * 200)
            answer = client.answer()
            assert (answer.status, answer.reason, answer.body) == (200, "OK", b"hello world")
            assert answer.header("content-type") == "text/plain"
            assert answer.header("connection") == "keep-alive"
            date = answer.header("date")
            assert date is not None
            assert date.endswith(" GMT")


def test_a_head_answer_withholds_the_body(serve: Serve) -> None:
    with serve().connect() as client:
        client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer(head_only=True).header("content-length") == "11"
        client.get()
        assert client.answer().body == b"hello world"


def test_a_head_answer_may_name_the_length_of_a_body_that_is_not_at_hand(serve: Serve) -> None:
    def app(exchange: Exchange) -> None:
        exchange.answer(200, (), b"", length=5000)

    with serve(app).connect() as client:
        client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer(head_only=True).header("content-length") == "5000"


def test_parts_with_a_known_length_are_not_chunked_and_the_connection_stays(serve: Serve) -> None:
    def app(exchange: Exchange) -> None:
        exchange.start(200, length=6)
        exchange.write(b"abc")
        exchange.write(b"def")
        exchange.end()

    with serve(app).connect() as client:
        for _ in range(2):
            client.get()
            answer = client.answer()
            assert (answer.body, answer.header("content-length")) == (b"abcdef", "6")
            assert answer.header("transfer-encoding") is None
            assert answer.header("connection") == "keep-alive"


def test_a_streamed_head_answer_withholds_the_body(serve: Serve) -> None:
    def app(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"abc")
        exchange.end()

    with serve(app).connect() as client:
        client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer(head_only=True).header("transfer-encoding") == "chunked"
        client.get()
        assert client.answer().body == b"abc"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("streamed", [False, True])
def test_204_and_304_have_neither_body_nor_length(serve: Serve, status: int, streamed: bool) -> None:
    def app(exchange: Exchange) -> None:
        if streamed:
            exchange.start(status)
            exchange.write(b"dropped")
            exchange.end()
        else:
            exchange.respond(Response(status, (), b"dropped"))

    with serve(app).connect() as client:
        for _ in range(2):
            client.get()
            answer = client.answer()
            assert answer.status == status
            assert {name for name, _ in answer.headers} == {"connection", "date"}


def test_a_reason_and_an_unknown_status_are_sent_as_given(serve: Serve) -> None:
    answers = [Response(299), Response(200, (), b"", "Fine, thanks")]
    with serve(lambda exchange: exchange.respond(answers.pop())).connect() as client:
        client.get()
        assert client.answer().reason == "Fine, thanks"
        client.get()
        assert client.answer().status == 299


def test_http_10_and_close_are_honoured(serve: Serve) -> None:
    server = serve()
    for request in ("GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"):
        with server.connect() as client:
            client.send(request)
            assert client.answer().header("connection") == "close"
            assert client.is_closed()
    with server.connect() as client:
        client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.answer().header("connection") == "keep-alive"
        client.get()
        assert client.answer().status == 200


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(200, [(b"x-a", b"1\r\nset-cookie: evil")]), "header x-a has a line break"),
        (Response(200, [(b"x-a", b"1\n")]), "header x-a has a line break"),
        (Response(200, [(b"x-a", b"1\0")]), "line break or NUL"),
        (Response(200, [(b"x-a", b"\r"), (b"x-b", b"\n")]), "header x-a has a line break"),
        (Response(200, [(b"x-a: b\r\nx-c", b"1")]), "is not a header name"),
        (Response(200, [(b"", b"1")]), "is not a header name"),
        (Response(200, [(b"Content-Length", b"1")]), "Content-Length is written by the server"),
        (Response(200, [(b"transfer-encoding", b"chunked")]), "written by the server"),
        (Response(200, (), b"", "OK\r\nx: y"), "A reason phrase is"),
        (Response(101), "between 200 and 999"),
        (Response(1000), "between 200 and 999"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_cannot_be_sent_raises_and_can_be_corrected(
    serve: Serve, response: Response, message: str, streamed: bool
) -> None:
    raised: list[str] = []

    def app(exchange: Exchange) -> None:
        try:
            if streamed:
                exchange.start(response.status, response.headers, response.reason)
            else:
                exchange.respond(response)
        except ValueError as error:
            raised.append(str(error))
        exchange.respond(Response(500, (), b"corrected"))

    with serve(app).connect() as client:
        client.get()
        answer = client.answer()
    assert message in raised[0]
    assert (answer.status, answer.body) == (500, b"corrected")
    assert {name for name, _ in answer.headers} == {"connection", "content-length", "date"}


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (["respond", "respond"], r"respond\(\) on GET /a: the answer has been given"),
        (["start", "respond"], r"respond\(\) on GET /a: the answer has been started"),
        (["start", "start"], r"start\(\) on GET /a: the answer has been started"),
        (["write"], r"write\(\) on GET /a: waiting for the answer"),
        (["end"], r"end\(\) on GET /a: waiting for the answer"),
        (["start", "end", "write"], r"write\(\) on GET /a: the answer has been given"),
        (["respond", "end"], r"end\(\) on GET /a: the answer has been given"),
    ],
)
def test_a_call_out_of_turn_raises_and_names_the_state(serve: Serve, calls: list[str], message: str) -> None:
    arguments = {"respond": (Response(200),), "start": (200,), "write": (b"x",), "end": ()}
    app = Holding()
    server = serve(app)

    def call_all() -> None:
        for call in calls:
            getattr(app.exchanges[0], call)(*arguments[call])

    with server.connect() as client:
        client.get()
        app.wait_for(1)
        with pytest.raises(RuntimeError, match=message):
            server.run(call_all)


def test_an_application_that_raises_gives_a_500_and_the_next_request_is_served(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def app(exchange: Exchange) -> None:
        if exchange.request.path == "/bad":
            raise KeyError("oops")
        answer_ok(exchange)

    with serve(app).connect() as client:
        client.get("/bad")
        answer = client.answer()
        assert answer.status == 500
        assert answer.error["message"] == "KeyError: 'oops'"
        client.get()
        assert client.answer().status == 200
    assert "GET /bad: the application raised." in caplog.text
    assert "KeyError" in caplog.text


def test_an_application_that_raises_in_a_stream_cuts_it(serve: Serve) -> None:
    def app(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"abc")
        raise KeyError("oops")

    with serve(app).connect() as client:
        client.get()
        client.head()
        assert client.rest() == b"3\r\nabc\r\n"


def test_a_large_body_goes_both_ways(serve: Serve) -> None:
    body = bytes(range(256)) * 20_000
    with serve(echo).connect() as client:
        sender = threading.Thread(target=client.post, args=(body,))
        sender.start()
        assert client.answer().body == body
        sender.join()


def test_the_peer_is_named(serve: Serve) -> None:
    app = Holding()
    with serve(app).connect() as client:
        client.get()
        app.wait_for(1)
        host, port = client.sock.getsockname()
        assert app.exchanges[0].request.peer == f"{host}:{port}"


def test_answers_are_not_held_back_for_more(serve: Serve) -> None:
    app = Holding()
    server = serve(app)
    with server.connect() as client:
        client.get()
        app.wait_for(1)
        transport = app.exchanges[0]._channel._transport  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        assert server.run(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) != 0


# --- pipelining -------------------------------------------------------------------------------------


def test_pipelined_requests_reach_the_application_one_at_a_time_and_in_order(
    serve: Serve,
) -> None:
    app = Holding()
    server = serve(app)
    with server.connect() as client:
        client.send("".join(f"GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(5)))
        for n in range(5):
            app.wait_for(n + 1)
            assert app.paths == [f"/{i}" for i in range(n + 1)]
            server.run(lambda n=n: app.exchanges[n].respond(Response(200, (), b"%d" % n)))  # type: ignore[misc]
            assert client.answer().body == b"%d" % n
        client.get("/5")
        app.wait_for(6)


def test_a_client_that_pipelines_without_end_is_closed_after_the_limit_and_gets_those_answers(
    serve: Serve,
) -> None:
    with serve(max_pipelined=10).connect() as client:
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 30)
        answers = [client.answer() for _ in range(10)]
        assert [answer.header("connection") for answer in answers] == ["keep-alive"] * 9 + ["close"]
        assert client.is_closed()


def test_reading_pauses_while_pipelined_requests_wait(serve: Serve) -> None:
    app = Holding()
    server = serve(app, write_timeout_s=60)
    with server.connect() as client:
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        app.wait_for(1)
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(400):
                client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
        assert len(app.exchanges) == 1


def test_answers_do_not_pile_up_for_a_pipelining_client_that_does_not_read(serve: Serve) -> None:
    calls: list[str] = []

    def app(exchange: Exchange) -> None:
        calls.append(exchange.request.path)
        exchange.respond(Response(200, (), b"x" * 1_000_000))

    server = serve(app)
    with server.connect(receive_buffer=4096) as client:
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 60)
        until(lambda: calls)
        assert server.run(lambda: len(calls)) < 20, "the transport would have to hold them all"
        for _ in range(60):
            assert len(client.answer().body) == 1_000_000


# --- Expect: 100-continue ---------------------------------------------------------------------------

EXPECT = "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"


def test_continue_is_sent_before_the_body_and_then_the_answer(serve: Serve) -> None:
    with serve(echo).connect() as client:
        for _ in range(2):
            client.send(EXPECT.format(5))
            assert client.answer().status == 100
            client.send("hello")
            assert client.answer().body == b"hello"


def test_continue_is_left_out_when_the_body_is_there(serve: Serve) -> None:
    with serve(echo).connect() as client:
        client.send(EXPECT.format(5) + "hello")
        assert client.answer().status == 200


def test_a_body_over_the_limit_is_refused_instead_of_continued(serve: Serve) -> None:
    with serve(echo, max_body_bytes=10).connect() as client:
        client.send(EXPECT.format(11))
        answer = client.answer()
        assert answer.status == 413
        assert (
            answer.error["message"]
            == "The request body has 11 bytes; the limit is 10 bytes (max_request_size)."
        )


def test_continue_waits_for_the_answer_before_it(serve: Serve) -> None:
    app = Holding()
    server = serve(app)
    with server.connect() as client:
        client.get()
        client.send(EXPECT.format(5))
        app.wait_for(1)
        assert client.is_quiet()
        server.run(lambda: app.exchanges[0].respond(Response(200)))
        assert client.answer().status == 200
        assert client.answer().status == 100


def test_continue_waits_for_the_budget(serve: Serve) -> None:
    app = Holding()
    server = serve(app, budget=BodyBudget(100))
    with server.connect() as first, server.connect() as second:
        first.post(b"x" * 80)
        app.wait_for(1)
        second.send(EXPECT.format(50))
        assert second.is_quiet()
        server.run(lambda: app.exchanges[0].respond(Response(200)))
        assert second.answer().status == 100


# --- bodies over the limit --------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_that_is_still_sending_can_read_why_it_is_refused(serve: Serve, framing: str) -> None:
    size = 20_000_000  # more than the kernel buffers
    with serve(max_body_bytes=1000).connect() as client:
        if framing == "length":
            client.send(f"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")
            client.send(b"x" * size)
        else:
            client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
        answer = client.answer()
        assert answer.status == 413
        assert answer.error["type"] == "PayloadTooLargeException"
        assert "the limit is 1000 bytes (max_request_size)." in answer.error["message"]
        assert answer.header("connection") == "close"
        assert client.is_closed()


def test_a_refused_client_that_never_stops_is_cut(serve: Serve) -> None:
    with serve(max_body_bytes=1000, linger_bytes=1_000_000).connect() as client:
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                client.send(b"x" * 100_000)


# --- the body budget --------------------------------------------------------------------------------


def test_reading_stops_above_the_budget_and_goes_on_in_the_order_of_arrival(serve: Serve) -> None:
    app = Holding()
    budget = BodyBudget(1_000_000)
    server = serve(app, budget=budget)
    clients = [server.connect() for _ in range(5)]
    senders = []
    for n, client in enumerate(clients):
        senders.append(threading.Thread(target=client.post, args=(b"x" * 900_000, f"/{n}")))
        senders[-1].start()
        until(lambda n=n: len(app.exchanges) + budget.waiting == n + 1)  # type: ignore[misc]
    for n, client in enumerate(clients):
        app.wait_for(n + 1)
        assert budget.used_bytes == 900_000
        assert app.paths == [f"/{i}" for i in range(n + 1)]
        server.run(lambda n=n: app.exchanges[n].respond(Response(200)))  # type: ignore[misc]
        assert client.answer().status == 200
    for sender, client in zip(senders, clients, strict=True):
        sender.join()
        client.close()
    until(lambda: budget.used_bytes == 0)


def test_a_paused_client_cannot_send_its_body(serve: Serve) -> None:
    app = Holding()
    server = serve(app, budget=BodyBudget(1000))
    with server.connect() as first, server.connect() as second:
        first.post(b"x" * 900)
        app.wait_for(1)
        second.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # or the kernel may hold it all
        second.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.post(b"x" * 6_500_000)


def test_a_body_larger_than_the_budget_is_admitted_alone(serve: Serve) -> None:
    with serve(echo, budget=BodyBudget(10)).connect() as client:
        for _ in range(2):
            client.post(b"x" * 1000)
            assert len(client.answer().body) == 1000


def test_a_chunked_body_holds_the_most_it_may_be_until_its_size_is_known(serve: Serve) -> None:
    app = Holding()
    budget = BodyBudget(10_000)
    server = serve(app, budget=budget, max_body_bytes=5000)
    with server.connect() as client:
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        until(lambda: budget.used_bytes == 5000)
        client.send("0\r\n\r\n")
        app.wait_for(1)
        assert budget.used_bytes == 3


def test_a_small_chunked_body_behind_a_full_budget_is_served_in_its_turn(serve: Serve) -> None:
    app = Holding()
    server = serve(app, budget=BodyBudget(5000), max_body_bytes=5000)
    with server.connect() as first, server.connect() as second:
        first.post(b"x" * 100)
        app.wait_for(1)
        second.send("POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        app.wait_for(2)  # its size is known: it fits
        assert bytes(app.exchanges[1].request.body) == b"abc"


def test_a_dead_connection_leaves_the_waiting_line(serve: Serve) -> None:
    app = Holding()
    budget = BodyBudget(1000)
    server = serve(app, budget=budget, linger_timeout_s=0.1)
    with server.connect() as first, server.connect() as third:
        first.post(b"x" * 900)
        app.wait_for(1)
        second = server.connect()
        second.send("POST /dead HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nxxx")
        until(lambda: budget.waiting == 1)
        third.post(b"y" * 900, "/third")
        until(lambda: budget.waiting == 2)
        second.close()
        until(lambda: budget.waiting == 1, "leaving the line")
        server.run(lambda: app.exchanges[0].respond(Response(200)))
        app.wait_for(2)
        assert app.paths == ["/a", "/third"]


def test_a_body_waiting_for_budget_does_not_time_out(serve: Serve) -> None:
    app = Holding()
    server = serve(app, budget=BodyBudget(1000), **SHORT)
    with server.connect() as first, server.connect() as second:
        first.post(b"x" * 900)
        app.wait_for(1)
        second.send("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n")
        assert second.is_quiet(for_s=1.0)
        second.send(b"x" * 900)  # before its turn, which begins another 0.3 s
        server.run(lambda: app.exchanges[0].respond(Response(200)))
        app.wait_for(2)


def test_many_bodies_over_the_budget_do_not_deadlock_or_recurse(serve: Serve) -> None:
    server = serve(echo, budget=BodyBudget(1), max_connections=2000)
    clients = [server.connect() for _ in range(300)]
    for client in clients:
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    for client in clients:
        client.send("cd")
    for client in clients:
        assert client.answer().body == b"abcd"
        client.close()


# --- timeouts ---------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    with serve(keep_alive_timeout_s=0.5).connect() as client:
        client.get()
        assert client.answer().status == 200
        assert client.is_closed()


@pytest.mark.parametrize(
    ("start", "part"), [("GET /a HTT", "head"), ("POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", "body")]
)
def test_a_request_that_stops_half_way_is_answered_408(serve: Serve, start: str, part: str) -> None:
    with serve(**SHORT).connect() as client:
        client.send(start)
        answer = client.answer()
        assert answer.status == 408
        assert answer.error["message"] == f"The rest of the request's {part} did not come within 0.3 s."
        assert client.is_closed()


def test_a_head_that_drips_is_answered_408(serve: Serve) -> None:
    with serve(**SHORT).connect() as client:
        client.send("GET /a HTTP/1.1\r\nX-A: ")
        answered = threading.Event()

        def drip() -> None:
            while not answered.wait(0.02):
                try:
                    client.send("b")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = client.answer()
        answered.set()
        dripping.join()
        assert answer.status == 408


def test_a_body_that_comes_slowly_but_comes_is_served(serve: Serve) -> None:
    with serve(echo, read_timeout_s=1.0).connect() as client:
        client.send("POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            assert client.is_quiet(for_s=0.15)  # 1.5 s in all
            client.send("x")
        assert client.answer().body == b"x" * 10


def test_time_in_which_the_loop_stood_still_is_not_the_clients(serve: Serve) -> None:
    server = serve(echo, **SHORT)
    with server.connect() as client:
        client.send("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\na")
        until(lambda: server.server.budget.used_bytes == 2)
        server.run(lambda: time.sleep(3 * SHORT["read_timeout_s"]))
        client.send("b")
        assert client.answer().status == 200


def test_a_slow_application_is_not_the_clients_fault(serve: Serve) -> None:
    app = Holding()
    server = serve(app, **SHORT)
    with server.connect() as client:
        client.get()
        assert client.is_quiet(for_s=1.0)
        server.run(lambda: app.exchanges[0].respond(Response(200)))
        assert client.answer().status == 200


def test_a_client_that_does_not_read_its_answer_is_cut(serve: Serve) -> None:
    asked: list[str] = []

    def app(exchange: Exchange) -> None:
        asked.append(exchange.request.path)
        exchange.respond(Response(200, (), b"x" * 30_000_000))

    server = serve(app, **SHORT)
    with server.connect(receive_buffer=4096) as client:
        client.get()
        until(lambda: asked)
        until(lambda: server.server.connections == 0, "cutting the connection")
        with pytest.raises((Closed, ConnectionResetError)):
            client.answer()


def test_a_client_that_reads_slowly_but_reads_gets_everything(serve: Serve) -> None:
    server = serve(lambda exchange: exchange.respond(Response(200, (), b"x" * 8_000_000)), write_timeout_s=1)
    with server.connect(receive_buffer=65536) as client:
        client.get()
        client.head()
        for _ in range(10):
            time.sleep(0.15)  # 1.5 s in all
            assert client.exactly(800_000) == b"x" * 800_000


# --- streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_a_stream_is_chunked_and_the_connection_stays(serve: Serve, size: int) -> None:
    def app(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/plain")])
        for letter in (b"a", b"", b"b"):
            exchange.write(letter * size)
        exchange.end()

    with serve(app).connect() as client:
        for _ in range(2):
            client.get()
            answer = client.answer()
            assert answer.header("transfer-encoding") == "chunked"
            assert answer.header("content-length") is None
            assert answer.body == b"a" * size + b"b" * size


def test_a_stream_for_http_10_ends_with_the_connection(serve: Serve) -> None:
    def app(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"abc")
        exchange.end()

    with serve(app).connect() as client:
        client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.answer()
        assert answer.header("transfer-encoding") is None
        assert answer.header("connection") == "close"
        assert answer.body == b"abc"


def test_a_stream_waits_for_a_slow_client(serve: Serve) -> None:
    chunk, count = b"x" * 50_000, 400
    sent: list[int] = [0]

    def app(exchange: Exchange) -> None:
        def go_on() -> None:
            while sent[0] < count:
                sent[0] += 1
                if not exchange.write(chunk):
                    return
            exchange.on_drain = None
            exchange.end()

        exchange.start(200)
        exchange.on_drain = go_on
        go_on()

    server = serve(app)
    with server.connect(receive_buffer=4096) as client:
        client.get()
        until(lambda: sent[0] > 0)
        assert client.head().status == 200
        assert server.run(lambda: sent[0]) < count, "the transport would have to hold it all"
        total = b""
        while size := int(client.line(), 16):
            total += client.exactly(size + 2)[:-2]
        assert total == chunk * count


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_an_aborted_stream_is_seen_to_be_incomplete(serve: Serve, version: str) -> None:
    app = Holding()
    server = serve(app)

    def start() -> None:
        app.exchanges[0].start(200)
        app.exchanges[0].write(b"abc")

    with server.connect() as client:
        client.send(f"GET /a HTTP/{version}\r\n\r\n")
        app.wait_for(1)
        server.run(start)
        client.head()
        body = client.exactly(8 if version == "1.1" else 3)
        server.run(app.exchanges[0].abort)
        if version == "1.1":
            assert body == b"3\r\nabc\r\n"
            assert client.rest() == b""
        else:
            with pytest.raises(ConnectionResetError):
                client.rest()
    assert app.closed == []


def test_an_exchange_aborted_before_its_answer_closes_without_one(serve: Serve) -> None:
    app = Holding()
    server = serve(app)
    with server.connect() as client:
        client.post(b"abc")
        app.wait_for(1)
        server.run(app.exchanges[0].abort)
        assert client.is_closed()
        server.run(app.exchanges[0].abort)


# --- clients that go away ---------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_the_application_learns_that_its_client_has_gone(serve: Serve, reset: bool) -> None:
    app = Holding()
    budget = BodyBudget(1000)
    server = serve(app, budget=budget)
    client = server.connect()
    client.post(b"x" * 100)
    app.wait_for(1)
    if reset:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    until(lambda: app.closed == ["/a"])
    exchange = app.exchanges[0]
    assert exchange.closed
    assert budget.used_bytes == 0

    def answer_anyway() -> None:
        exchange.start(200)
        assert exchange.write(b"abc")
        exchange.end()
        exchange.respond(Response(200))
        exchange.abort()

    server.run(answer_anyway)
    assert app.closed == ["/a"]


def test_a_client_that_leaves_a_stream_is_noticed(serve: Serve) -> None:
    app = Holding()
    server = serve(app)
    client = server.connect()
    client.get()
    app.wait_for(1)
    server.run(lambda: app.exchanges[0].start(200))
    client.head()
    client.close()
    until(lambda: app.closed == ["/a"])


def test_a_pipelining_client_that_leaves_is_noticed_though_reading_is_paused(serve: Serve) -> None:
    app = Holding()
    server = serve(app, linger_timeout_s=0.1)
    client = server.connect()
    client.send("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    app.wait_for(1)
    client.close()
    until(lambda: app.closed == ["/a"])
    assert app.paths == ["/a"]


# --- the server's life ------------------------------------------------------------------------------


def test_stopping_refuses_new_clients_closes_idle_ones_and_finishes_what_is_in_flight(serve: Serve) -> None:
    app = Holding()
    server = serve(app)
    with server.connect() as idle, server.connect() as busy:
        idle.get("/idle")
        app.wait_for(1)
        server.run(lambda: app.exchanges[0].respond(Response(200)))
        assert idle.answer().status == 200
        busy.get("/busy")
        app.wait_for(2)
        server.run(server.server.stop_accepting)
        assert idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert server.wait(server.server.drain(0.05)) is False
        server.run(lambda: app.exchanges[1].respond(Response(200, (), b"done")))
        answer = busy.answer()
        assert (answer.body, answer.header("connection")) == (b"done", "close")
        assert busy.is_closed()
        assert server.wait(server.server.drain(10)) is True


def test_a_request_half_sent_when_the_server_stops_is_served(serve: Serve) -> None:
    server = serve(echo)
    with server.connect() as client:
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        until(lambda: server.server.budget.used_bytes == 4)
        server.run(server.server.stop_accepting)
        client.send("cd")
        answer = client.answer()
        assert (answer.body, answer.header("connection")) == (b"abcd", "close")


def test_abort_cuts_what_is_in_flight(serve: Serve) -> None:
    app = Holding()
    server = serve(app)
    with server.connect() as client:
        client.get()
        app.wait_for(1)
        server.run(server.server.abort)
        assert client.is_closed()
        assert app.closed == ["/a"]
        assert server.wait(server.server.drain(10)) is True


def test_a_client_over_the_connection_limit_is_told_so(serve: Serve) -> None:
    server = serve(max_connections=2)
    with server.connect() as first, server.connect() as second, server.connect() as third:
        for client in (first, second):
            client.get()
            assert client.answer().status == 200
        third.get()
        answer = third.answer()
        assert answer.status == 503
        assert (
            answer.error["message"] == "The server has 2 open connections, its limit; try again in a moment."
        )
        assert answer.header("retry-after") == "1"
        assert third.is_closed()
        first.close()
        until(lambda: server.server.connections < 2)
        with server.connect() as fourth:
            fourth.get()
            assert fourth.answer().status == 200


def test_a_server_listens_on_a_path_and_on_a_socket(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    path = str(tmp_path / "s")
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    server.wait(server.server.start(path=path))
    server.wait(server.server.start(sock=bound))
    assert server.server.addresses[1:] == [path, bound.getsockname()]
    unix = socket.socket(socket.AF_UNIX)
    unix.connect(path)
    with server.connect() as over_tcp:
        over_tcp.get()
        assert over_tcp.answer().status == 200
    unix.settimeout(10)
    unix.sendall(b"GET /a HTTP/1.0\r\n\r\n")
    assert unix.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    unix.close()
    server.run(server.server.stop_accepting)
    assert not Path(path).exists()


def test_a_connection_leaves_no_garbage_for_the_collector(serve: Serve) -> None:
    server = serve()
    seen: list[weakref.ref[Connection]] = []
    with server.connect() as client:
        client.get()
        client.answer()
        gc.disable()
        try:
            server.run(lambda: seen.extend(weakref.ref(c) for c in server.server._shared.connections))
            client.close()
            until(lambda: server.server.connections == 0)
            until(lambda: server.run(lambda: all(reference() is None for reference in seen)))
        finally:
            gc.enable()
    assert len(seen) == 1


def test_a_unix_socket_is_never_bound_without_listening(tmp_path: Path) -> None:
    """Between the two another server would take it for what a dead one has left."""
    path = str(tmp_path / "s")
    first = UnixSocket(path)
    try:
        with pytest.raises(OSError, match="another server listens there"):
            UnixSocket(path)
    finally:
        first.sock.close()
        first.remove()
