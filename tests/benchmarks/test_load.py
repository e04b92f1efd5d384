"""The load generators: what is a valid run, and what time is counted."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.load import LoadFailed, Probe, ProbeResult, Target, probe, wrk, zipf_weights

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


class Handler(BaseHTTPRequestHandler):
    """Answers 200, or 503 below /busy; the server's ``seen`` counts bodies, ``pause_s`` delays."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        assert isinstance(server, Server)
        with server.lock:
            server.seen[self.path, body] = server.seen.get((self.path, body), 0) + 1
        time.sleep(server.pause_s)
        self.send_response(503 if self.path.startswith("/busy") else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server on a free port."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.seen: dict[tuple[str, bytes], int] = {}
        self.pause_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # load generators hang up in the middle


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@needs_wrk
def test_wrk_sends_any_bytes_as_they_are_and_counts_answers(server: Server) -> None:
    body = b'1,"\\\n\x00\xff]]'
    result = wrk(server.url, [Target("POST", "/models/a%20b/invoke", {}, body)], 2, 1)
    assert set(server.seen) == {("/models/a%20b/invoke", body)}
    assert result.requests > 0
    assert 0 < result.p50_us <= result.p90_us <= result.p99_us <= result.max_us


@needs_wrk
def test_wrk_draws_targets_by_weight(server: Server) -> None:
    targets = [Target("POST", "/often", {}, b"", 9), Target("POST", "/never", {}, b"", 0)]
    wrk(server.url, [*targets, Target("POST", "/seldom", {}, b"", 1)], 2, 1)
    counts = {path: count for (path, _), count in server.seen.items()}
    assert counts.keys() == {"/often", "/seldom"}
    assert counts["/often"] > 3 * counts["/seldom"]


@needs_wrk
def test_a_run_with_an_answer_that_is_no_2xx_is_not_valid(server: Server) -> None:
    targets = [Target("POST", "/", {}, b"", 9), Target("POST", "/busy", {}, b"", 1)]
    with pytest.raises(LoadFailed, match=r"not a valid run: \d+ answers, errors \{'status': \d+\}"):
        wrk(server.url, targets, 2, 1)


def test_zipf_gives_the_nth_model_the_nth_part() -> None:
    assert zipf_weights(4) == [1, 1 / 2, 1 / 3, 1 / 4]


def test_the_probe_counts_from_the_time_a_request_was_due(server: Server) -> None:
    server.pause_s = 0.05
    target = Target("POST", "/", {}, b"x")
    with Probe(server.url, [target], 0.01) as running:
        deadline = time.monotonic() + 20
        while sum(server.seen.values()) < 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        result = running.stop()
    assert not result.errors
    assert len(result.answers) >= 200
    # A pause of 50 ms is five intervals long: all requests were sent all the same. Not the last: a thread
    # that is late when the probe is stopped sends no more.
    times = sorted(due for due, _ in result.answers)[:100]
    assert all(later - earlier < 0.011 for earlier, later in itertools.pairwise(times))
    assert min(latency for _, latency in result.answers) >= 50


def test_the_probe_names_answers_that_are_no_2xx(server: Server) -> None:
    result = probe(server.url, [Target("POST", "/busy", {}, b"")], 0.01, 0.5)
    assert set(result.errors) == {"503 ok"}


def test_only_answers_due_in_a_span_count_for_it() -> None:
    result = ProbeResult([(1.0, 5.0), (2.0, 50.0), (3.0, 500.0)], [])
    assert result.during([(0.5, 1.5), (1.9, 2.1)]).percentile_ms(1.0) == 50.0
    with pytest.raises(LoadFailed, match="no answer in the time that matters"):
        result.during([(4.0, 5.0)])
