"""Calls: their order, back-pressure, streams, large bodies, clients that leave, batches, deadlines."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmekit import process
from tests.support.server import Answer, Server, image_server, plain_model, until

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models a to d in one worker. A long call there is no stall: the spare stays where it is."""
    with image_server(
        tmp_path_factory.mktemp("one"), ["a", "b", "c", "d"], MMEKIT_WORKERS="1", MMEKIT_MAX_COPIES="1",
        MMEKIT_STALL_MS="100000",
    ) as server:  # fmt: skip
        yield server


def waits(server: Server, name: str, body: str = "echo x") -> socket.socket:
    """Send an invocation and return its connection without reading the answer."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /models/{name}/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body.encode())
    return client


def rest_of(client: socket.socket) -> bytes:
    """Return all that comes until the server closes, or nothing comes for a while."""
    received = b""
    with contextlib.suppress(TimeoutError):
        while data := client.recv(65536):
            received += data
    return received


def left(server: Server, name: str) -> int:
    """How many clients are known to have left before their answer."""
    return sum(line.get("status") == 499 and line.get("model") == name for line in server.lines)


# --- order -----------------------------------------------------------------------------------------------


def test_the_model_whose_oldest_request_waits_longest_goes_next(one_worker: Server) -> None:
    blocked = one_worker.later(one_worker.invoke, "a", "sleep 0.5")
    time.sleep(0.1)
    order = ["c", "b", "d", "b", "c"]
    clients = []
    for name in order:
        clients.append(waits(one_worker, name, "time"))
        time.sleep(0.02)
    assert blocked.result().status == 200
    times = []
    for client in clients:
        with client:
            response = http.client.HTTPResponse(client)
            response.begin()
            times.append(float(response.read()))
    assert times == sorted(times)


def test_a_model_that_is_always_busy_does_not_starve_its_neighbour(one_worker: Server) -> None:
    stop = threading.Event()
    ended: list[str] = []

    def hammer() -> int:
        calls = 0
        while not stop.is_set():
            assert one_worker.invoke("a", "sleep 0.02").status == 200
            ended.append("a")
            calls += 1
        return calls

    def calls_of_a_before_b_is_answered() -> int:
        before = len(ended)
        assert one_worker.invoke("b", "echo in turn").text == "in turn"
        return len(ended) - before

    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(hammer) for _ in range(8)]
        try:
            time.sleep(0.3)
            waited_for = [calls_of_a_before_b_is_answered() for _ in range(3)]
        finally:
            stop.set()
        assert min(call.result() for call in crowd) >= 1
    assert max(waited_for) < 75, "b waited for more than those before it"


def test_many_models_under_zipf_traffic_all_answer(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(40)]
    with image_server(tmp_path, names, MMEKIT_WORKERS="2") as server:
        chance = random.Random(3)
        weights = [1 / (rank + 1) for rank in range(len(names))]
        picks = chance.choices(names, weights, k=1200)

        def ask(share: list[str]) -> list[tuple[int, str, str]]:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            with contextlib.closing(connection):
                answers = []
                for number, name in enumerate(share):
                    connection.request("POST", f"/models/{name}/invoke", f"echo {name} {number}")
                    response = connection.getresponse()
                    answers.append((response.status, f"{name} {number}", response.read().decode()))
                return answers

        calls = [server.later(ask, picks[start::32]) for start in range(32)]  # type: ignore[arg-type]
        answers = [answer for call in calls for answer in call.result()]  # type: ignore[attr-defined]
    assert len(answers) == 1200
    for status, expected, got in answers:
        assert (status, got) == (200, expected)


# --- back-pressure ------------------------------------------------------------------------------------------


def test_a_full_queue_answers_503_at_once_and_says_when_to_come_again(tmp_path: Path) -> None:
    with image_server(
        tmp_path, ["a", "b"], MMEKIT_WORKERS="1", MMEKIT_MAX_COPIES="1", SAGEMAKER_MODEL_JOB_QUEUE_SIZE="3",
        MMEKIT_STALL_MS="100000",
    ) as server:  # fmt: skip
        runs = tmp_path / "runs"
        running = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        calls = [server.later(server.invoke, "a", "echo x") for number in range(8)]
        refused = until(lambda: (d := [call for call in calls if call.done()]) and len(d) == 5 and d)
        assert not running.done()
        for call in refused:
            full = call.result()
            assert full.status == 503
            assert full.headers["retry-after"] == "1"
            assert full.json["type"] == "ServiceUnavailableException"
            assert full.message == (
                "No worker is available to serve request for model: a. 3 requests wait for it already. "
                "Consider increasing job queue size (SAGEMAKER_MODEL_JOB_QUEUE_SIZE)."
            )
        neighbour = server.later(server.invoke, "b", "echo has a queue of its own")
        loaded = server.later(server.load, "late", plain_model(tmp_path, "late"))
        assert loaded.result().status == 200, "loads are not refused by full queues"
        assert not running.done()
        runs.unlink()
        assert running.result().status == 200
        assert sorted(call.result().status for call in calls) == [200] * 3 + [503] * 5
        assert neighbour.result().status == 200
        assert server.invoke("a", "echo room again").text == "room again"


def test_all_queues_together_are_bounded_too(tmp_path: Path) -> None:
    with image_server(
        tmp_path, ["a", "b", "c"], MMEKIT_WORKERS="1", MMEKIT_MAX_COPIES="1", MMEKIT_QUEUE_SIZE="4",
        MMEKIT_STALL_MS="100000",
    ) as server:  # fmt: skip
        runs = tmp_path / "runs"
        running = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        calls = [server.later(server.invoke, "abc"[number % 3], "echo x") for number in range(7)]
        refused = until(lambda: (d := [call for call in calls if call.done()]) and len(d) == 3 and d)
        for call in refused:
            full = call.result()
            assert full.status == 503
            assert full.message == (
                "4 requests wait on this server already, for all models together (MMEKIT_QUEUE_SIZE)."
            )
            assert full.headers["retry-after"] == "1"
        assert not running.done()
        runs.unlink()
        assert running.result().status == 200
        assert sorted(call.result().status for call in calls) == [200] * 4 + [503] * 3
        assert server.invoke("c", "echo x").status == 200


def test_clients_that_left_take_no_room_in_a_queue(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_MAX_COPIES="1", SAGEMAKER_MODEL_JOB_QUEUE_SIZE="2") as server:
        runs = tmp_path / "runs"
        running = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        gone = [waits(server, "a", "leak 1") for _ in range(2)]
        until(lambda: server.waiting("a") == 2)
        assert server.invoke("a", "echo x").status == 503
        for client in gone:
            client.close()
        until(lambda: left(server, "a") == 2)
        room = server.later(server.invoke, "a", "echo room")
        until(lambda: server.waiting("a") == 1)
        assert not running.done()
        runs.unlink()
        assert room.result().text == "room"
        assert running.result().status == 200
        assert server.invoke("a", "leak 0").text == "kept 0 MiB", "requests of clients that left were run"


# --- bodies ----------------------------------------------------------------------------------------------


def test_bodies_above_the_budget_wait_and_are_all_answered(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a", "b"], MMEKIT_BODY_BUDGET_BYTES=str(4 * MIB)) as server:
        body = b"length " + b"x" * (3 * MIB)
        calls = [server.later(server.invoke, "ab"[number % 2], body) for number in range(12)]
        over = server.later(server.invoke, "a", b"length " + b"y" * (8 * MIB))
        assert [call.result().text for call in calls] == [str(3 * MIB)] * 12
        assert over.result().text == str(8 * MIB), "a body over the whole budget is read when it is alone"
        assert server.get("/ping").status == 200


def test_a_client_that_stops_within_its_body_does_not_hold_the_others(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"]) as server:
        stuck = socket.create_connection(("127.0.0.1", server.port))
        stuck.sendall(b"POST /models/a/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nlength ")
        assert server.invoke("a", b"length " + b"x" * MIB).text == str(MIB)
        stuck.close()


def test_answers_of_twenty_megabytes_arrive_whole(one_worker: Server) -> None:
    calls = [one_worker.later(one_worker.invoke, "ab"[number % 2], f"size {20 * MIB}") for number in range(4)]
    for call in calls:
        answer = call.result()
        assert answer.headers["content-length"] == str(20 * MIB)
        assert len(answer.body) == 20 * MIB


# --- streams ---------------------------------------------------------------------------------------------


def test_a_generators_parts_arrive_before_its_end(one_worker: Server, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with waits(one_worker, "a", f"halves {runs}") as client:
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.getheader("transfer-encoding") == "chunked"
        assert response.getheader("x-request-id")
        assert response.read1() == b"first half, "
        until(runs.exists)
        runs.unlink()
        assert response.read() == b"second half"


def test_a_stream_to_an_http_1_0_client_ends_by_closing(one_worker: Server) -> None:
    with socket.create_connection(("127.0.0.1", one_worker.port), timeout=10) as client:
        client.sendall(b"POST /models/a/invoke HTTP/1.0\r\nContent-Length: 14\r\n\r\nstream 3 8 0.0")
        head, _, body = rest_of(client).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b"000000..000001..000002.."


def test_a_reader_that_is_slow_does_not_grow_the_server(one_worker: Server) -> None:
    before = resident(one_worker.pid)
    with waits(one_worker, "a", f"stream 400 {MIB // 2} 0"):
        until(lambda: one_worker.get("/models").status == 200)
        time.sleep(1)
        assert resident(one_worker.pid) - before < 30 * MIB
    assert one_worker.invoke("b", "echo next").seconds < 30


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@pytest.mark.parametrize("size", [200_000, *(number * MIB // 4 + 10 for number in range(8, 21))])
def test_a_reader_that_is_slow_at_the_end_of_a_stream_does_not_hold_the_worker(
    one_worker: Server, size: int
) -> None:
    """Its last part and the end may come in one read, when the server has just asked for a pause."""
    with waits(one_worker, "a", f"stream 1 {size} 0") as client:
        until(lambda: client.recv(1, socket.MSG_PEEK))
        time.sleep(0.1)
        neighbour = one_worker.later(one_worker.invoke, "b", "echo next")
        if size < 3 * MIB:  # what fits into the buffers of kernel and server
            assert neighbour.result(timeout=30).text == "next"
        response = http.client.HTTPResponse(client)
        response.begin()
        assert len(response.read()) == size
        assert neighbour.result(timeout=30).text == "next"


def test_a_reader_that_never_comes_back_is_cut_at_the_deadline_of_the_call(tmp_path: Path) -> None:
    with image_server(tmp_path, ["b"], MMEKIT_WORKERS="1") as server:
        assert server.load("a", plain_model(tmp_path, "a"), response_timeout=1).status == 200
        with waits(server, "a", f"stream 500 {MIB} 0") as client:
            until(lambda: client.recv(1, socket.MSG_PEEK))
            assert server.invoke("b", "echo moved to the spare").status == 200
            assert server.told("The client read nothing for 1 s.")
            assert in_time(server, "a", "echo after the deadline").status == 200


def in_time(server: Server, name: str, body: str) -> Answer:
    """Ask a model whose deadline is so short that this machine may hold it up for longer."""
    answer: Answer = until(lambda: (a := server.invoke(name, body)).status != 504 and a)
    return answer


def test_a_client_that_leaves_within_a_stream_frees_the_worker(one_worker: Server) -> None:
    for body in ("stream 1000 100 0.05", f"stream 5000 {MIB // 4} 0.01"):  # 50 s each
        client = waits(one_worker, "a", body)
        assert client.recv(100)
        client.close()
        answer = one_worker.invoke("a", "echo free")
        assert answer.text == "free"
        assert answer.seconds < 20


def test_a_generator_that_raises_midway_leaves_the_answer_incomplete(
    one_worker: Server, tmp_path: Path
) -> None:
    from tests.support.server import MODELS

    assert one_worker.load("cut", MODELS / "streams_then_raises").status == 200
    with waits(one_worker, "cut", "x") as client:
        received = rest_of(client)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"part 0\n" in received
    assert not received.endswith(b"0\r\n\r\n"), "the caller could not tell it from a whole answer"
    assert until(lambda: one_worker.logged("RuntimeError: the second part failed"))
    assert one_worker.unload("cut").status == 200


def test_a_worker_that_dies_within_a_stream_leaves_the_answer_incomplete(tmp_path: Path) -> None:
    import os
    import signal

    with image_server(tmp_path, ["a"]) as server:
        pid = server.facts("a")["pid"]
        with waits(server, "a", "stream 1000 10 0.05") as client:
            assert client.recv(1)
            os.kill(pid, signal.SIGKILL)
            assert not rest_of(client).endswith(b"0\r\n\r\n")
        assert server.invoke("a", "echo again").text == "again"


def test_a_client_that_stays_on_one_connection_can_stream_and_ask_in_turn(one_worker: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", one_worker.port, timeout=10)
    with contextlib.closing(connection):
        for number in range(6):
            body = "stream 3 8 0" if number % 2 else "echo plain"
            connection.request("POST", "/models/a/invoke", body)
            answer = connection.getresponse().read()
            assert answer == (b"000000..000001..000002.." if number % 2 else b"plain")


# --- clients that leave ------------------------------------------------------------------------------------


def test_requests_whose_clients_have_left_are_not_run(one_worker: Server, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    blocked = one_worker.later(one_worker.invoke, "a", f"stay {runs}")
    until(runs.exists)
    gone = [waits(one_worker, "d", "leak 1") for _ in range(5)]
    stays = one_worker.later(one_worker.invoke, "d", "leak 2")
    until(lambda: one_worker.waiting("d") == 6)
    for client in gone:
        client.close()
    until(lambda: left(one_worker, "d") == 5)
    runs.unlink()
    assert blocked.result().status == 200
    assert stays.result().text == "kept 2 MiB"


def test_a_thousand_models_with_clients_that_have_left_do_not_stop_the_worker(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(700)]
    with image_server(tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_STALL_MS="100000") as server:
        folder = plain_model(tmp_path)
        for call in [server.later(server.load, name, folder) for name in names]:
            assert call.result().status == 200
        blocked = server.later(server.invoke, "a", "sleep 2")
        time.sleep(0.2)
        gone = [waits(server, name) for name in names]
        for client in gone:
            client.close()
        assert blocked.result().status == 200
        assert server.invoke("a", "echo on").text == "on"
        assert server.invoke("m7", "echo on").text == "on"
        assert not server.logged("The server failed")
        assert not [line for line in server.lines if line["level"] == "CRITICAL" or "exception" in line]


# --- batches ---------------------------------------------------------------------------------------------


SERVICE = """
import time

def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == b"poison" for row in data):
        raise ValueError("poison")
    time.sleep(0.05)
    return [f"{len(data)} {row['body'].decode()}" for row in data]
"""


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batched")
    (folder / "service.py").write_text(SERVICE)
    return folder


def test_a_handler_that_asked_for_batches_gets_them(one_worker: Server, batched: Path) -> None:
    answer = one_worker.load("mms", batched, handler="service:handle", batch_size=4, max_batch_delay=30_000)
    assert answer.status == 200
    calls = [one_worker.later(one_worker.invoke, "mms", f"row {number}") for number in range(8)]
    answers = [call.result().text for call in calls]
    assert [answer.partition(" ")[2] for answer in answers] == [f"row {number}" for number in range(8)]
    assert {answer.partition(" ")[0] for answer in answers} == {"4"}
    assert one_worker.unload("mms").status == 200


def test_a_lone_request_waits_for_company_as_long_as_max_batch_delay(
    one_worker: Server, batched: Path
) -> None:
    one_worker.load("mms", batched, handler="service:handle", batch_size=4, max_batch_delay=300)
    alone = one_worker.invoke("mms", "x")
    assert alone.text == "1 x"
    assert 0.3 <= alone.seconds < 20
    assert one_worker.unload("mms").status == 200


def test_who_comes_within_max_batch_delay_is_company(one_worker: Server, batched: Path) -> None:
    one_worker.load("mms", batched, handler="service:handle", batch_size=4, max_batch_delay=2500)
    calls = [one_worker.later(one_worker.invoke, "mms", body) for body in "xy"]
    assert [call.result().text for call in calls] == ["2 x", "2 y"]
    assert min(call.result().seconds for call in calls) < 20
    assert one_worker.unload("mms").status == 200


def test_a_handler_that_did_not_ask_gets_one_request_a_call(one_worker: Server, batched: Path) -> None:
    one_worker.load("mms", batched, handler="service:handle")
    calls = [one_worker.later(one_worker.invoke, "mms", "x") for _ in range(8)]
    assert {call.result().text for call in calls} == {"1 x"}
    assert one_worker.unload("mms").status == 200


def test_a_batch_of_a_persons_own_handler_fails_together(one_worker: Server, batched: Path) -> None:
    one_worker.load("mms", batched, handler="service:handle", batch_size=3, max_batch_delay=30_000)
    calls = [one_worker.later(one_worker.invoke, "mms", body) for body in ("a", "poison", "c")]
    for call in calls:
        assert call.result().status == 503
        assert call.result().message == "Prediction failed: ValueError: poison (service.py:8)"
    calls = [one_worker.later(one_worker.invoke, "mms", body) for body in "def"]
    assert [call.result().text for call in calls] == ["3 d", "3 e", "3 f"]
    assert one_worker.unload("mms").status == 200


DEADLY = """
import os, time
row_wise = True

def model_fn(model_dir):
    return None

def input_fn(input_data, content_type):
    import numpy
    return numpy.array([[float(input_data)]])

def predict_fn(data, model):
    time.sleep(0.2)
    if (data == 13).any():
        os._exit(7)
    if (data == 14).any():
        raise ValueError("fourteen")
    return data * 2
"""


def test_of_a_batch_that_kills_its_worker_each_runs_again_alone(one_worker: Server, tmp_path: Path) -> None:
    folder = tmp_path / "deadly"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(DEADLY)
    assert one_worker.load("deadly", folder).status == 200
    first = one_worker.later(one_worker.invoke, "deadly", "1", "text/plain")
    time.sleep(0.1)
    numbers = [2, 3, 13, 4, 5]
    calls = [one_worker.later(one_worker.invoke, "deadly", str(number), "text/plain") for number in numbers]
    assert first.result().json == [[2.0]]
    for number, call in zip(numbers, calls, strict=True):
        answer = call.result()
        if number == 13:
            assert (answer.status, "exited with code 7" in answer.message) == (500, True)
        else:
            assert (answer.status, answer.json) == (200, [[number * 2.0]])
    assert one_worker.unload("deadly").status == 200


def test_of_a_batch_that_raises_each_runs_again_alone(one_worker: Server, tmp_path: Path) -> None:
    folder = tmp_path / "raises"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(DEADLY)
    assert one_worker.load("raises", folder).status == 200
    first = one_worker.later(one_worker.invoke, "raises", "1", "text/plain")
    time.sleep(0.1)
    numbers = [2, 14, 4]
    calls = [one_worker.later(one_worker.invoke, "raises", str(number), "text/plain") for number in numbers]
    assert first.result().status == 200
    for number, call in zip(numbers, calls, strict=True):
        answer = call.result()
        assert answer.status == (500 if number == 14 else 200), answer.body
    assert one_worker.unload("raises").status == 200


# --- deadlines ---------------------------------------------------------------------------------------------


def test_a_model_may_have_a_deadline_of_its_own(tmp_path: Path) -> None:
    with image_server(tmp_path, ["patient"]) as server:
        assert server.load("hasty", plain_model(tmp_path, "hasty"), response_timeout=1).status == 200
        hasty = server.later(server.invoke, "hasty", "sleep 20")
        patient = server.later(server.invoke, "patient", "sleep 1.4")
        assert hasty.result().status == 504
        assert "Model hasty did not answer within 1 s" in hasty.result().message
        assert 1 <= hasty.result().seconds < 15
        assert patient.result().text == "slept 1.4"
        assert in_time(server, "hasty", "echo on").text == "on"


def test_requests_that_waited_past_the_deadline_are_answered_504(tmp_path: Path) -> None:
    with image_server(
        tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_MAX_COPIES="1", MMEKIT_STALL_MS="100000"
    ) as server:  # fmt: skip
        assert server.load("b", plain_model(tmp_path, "b"), response_timeout=1).status == 200
        runs = tmp_path / "runs"
        running = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        calls = [server.later(server.invoke, "b", "echo x") for _ in range(3)]
        stays = server.later(server.invoke, "a", "echo in time")
        for late in [call.result() for call in calls]:
            assert late.status == 504
            assert "the request waited 1 s and no worker came free" in late.message
            assert 1 <= late.seconds < 20
        assert not stays.done()
        runs.unlink()
        assert running.result().status == 200
        assert stays.result().text == "in time"
        assert in_time(server, "b", "facts").json["model"] == "b"


# --- what calls leave behind ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"facts", "text/plain", 200),
        (b"stream 2 10 0", "text/plain", 200),
        (b"raise", "text/plain", 503),
        (b"unheard_of", "text/plain", 503),
        (b"a=%zz", "application/x-www-form-urlencoded", 400),
    ],
)
def test_a_body_is_let_go_with_its_answer(
    tmp_path: Path, body: bytes, content_type: str, status: int
) -> None:
    """In server and worker, however the call ends, and without waiting for the collector."""
    body += b" " * (16 * MIB)
    with image_server(tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_MAX_COPIES="1") as server:
        pids = (server.pid, server.invoke("a", "facts").json["pid"])
        before = [process.anonymous_bytes(pid) for pid in pids]
        most = 0
        for _ in range(30):
            assert server.invoke("a", body, content_type).status == status
            now = [process.anonymous_bytes(pid) for pid in pids]
            most = max(most, *(grown - first for first, grown in zip(before, now, strict=True)))
    assert most < 120 * MIB
