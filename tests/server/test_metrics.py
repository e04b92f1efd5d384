"""Metrics: what handlers report, the host's, and the server's own on ``GET /metrics``."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import MODELS, Server, image_server, plain_model, until

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
HOST = re.escape(socket.gethostname())

REPORTING = """
from mms.metrics.dimension import Dimension

def handle(data, context):
    if data is None:
        return None
    metrics = context.metrics
    metrics.add_counter("Rows", 2)
    metrics.add_counter("Rows", 1)
    metrics.add_time("Pre", 1.5, 0, "ms")
    metrics.add_percent("Full", 50, dimensions=[Dimension("Kind", "odd\\nname")])
    metrics.add_size("Big", 2.0, None, "MB")
    metrics.add_error("Oops", "text")
    metrics.add_metric("Free\\x01\\n", object, None, "rows")
    return ["ok"] * len(data)
"""


def reporting_model(folder: Path) -> Path:
    (folder / "reporting").mkdir()
    (folder / "reporting" / "service.py").write_text(REPORTING)
    return folder / "reporting"


# --- what handlers report ----------------------------------------------------------------------------


def test_what_a_handler_reports_is_in_the_log_with_its_model_and_request(tmp_path: Path) -> None:
    with Server() as server:
        assert server.load("m", reporting_model(tmp_path), handler="service:handle").status == 200
        answer = server.invoke("m", b"x")
        assert answer.text == "ok"
        lines = until(lambda: found if len(found := [x for x in server.lines if "metric" in x]) >= 6 else [])
    request_id = answer.headers["x-request-id"]
    common = {"ModelName": "m", "Level": "Model"}
    assert {line["logger"] for line in lines} == {"mmekit.metrics"}
    assert {line["model"] for line in lines} == {"m"}
    found = [(x["metric"], x["value"], x.get("unit"), x["dimensions"], x.get("request_id")) for x in lines]
    *known, free = found
    assert known == [
        ("Rows", 3, "Count", common, request_id),
        ("Pre", 1.5, "Milliseconds", common, request_id),
        ("Full", 50, "Percent", {"Kind": "odd\nname", **common}, request_id),
        ("Big", 2.0, "Megabytes", common, request_id),
        ("Oops", "text", None, {"Level": "Error"}, None),
    ]
    assert free[0] == "Free\x01\n"


def test_a_handler_that_reports_nothing_leaves_no_metric(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"]) as server:
        assert server.invoke("a", "print done").text == "printed"
        until(lambda: server.logged("done"))
    assert not [line for line in server.lines if "metric" in line]


def test_metrics_of_a_batch_carry_all_its_requests(tmp_path: Path) -> None:
    with Server() as server:
        folder = reporting_model(tmp_path)
        parameters = {"handler": "service:handle", "batch_size": 2, "max_batch_delay": 20_000}
        assert server.load("m", folder, **parameters).status == 200
        calls = [server.later(server.invoke, "m", b"x") for _ in range(2)]
        ids = {call.result().headers["x-request-id"] for call in calls}
        (line,) = until(lambda: [line for line in server.lines if line.get("metric") == "Rows"])
    assert set(line["request_id"].split(",")) == ids


def test_in_mms_form_metrics_are_lines_as_mms_writes_them(tmp_path: Path) -> None:
    with Server(MMEKIT_LOG_FORMAT="mms") as server:
        assert server.load("m", reporting_model(tmp_path), handler="service:handle").status == 200
        answer = server.invoke("m", b"x")
        assert answer.text == "ok"
        until(lambda: "PredictionTime" in "".join(server.raw))
    text = "".join(server.raw)
    place = rf"hostname:{HOST},requestID:{answer.headers['x-request-id']},timestamp:\d{{10}}"
    for metric in (
        r"Rows\.Count:3\|#ModelName:m,Level:Model",
        r"Pre\.Milliseconds:1\.5\|#ModelName:m,Level:Model",
        r"Full\.Percent:50\|#Kind:odd\?name,ModelName:m,Level:Model",
        r"PredictionTime\.Milliseconds:\d+\.\d+\|#ModelName:m,Level:Model",
    ):
        pattern = rf"^{TIME} \[INFO \] W-\d+-m MODEL_METRICS - {metric}\|#{place}$"
        assert re.search(pattern, text, re.MULTILINE), text


# --- the host's ----------------------------------------------------------------------------------------


def test_the_hosts_metrics_are_logged_every_so_often() -> None:
    with Server(MMEKIT_METRIC_TIME_INTERVAL_SECONDS="0.1") as server:
        until(lambda: len([x for x in server.lines if x.get("metric") == "CPUUtilization"]) >= 3)
        lines = [line for line in server.lines if "metric" in line]
    units = {line["metric"]: line["unit"] for line in lines}
    assert units == {
        **dict.fromkeys(("CPUUtilization", "MemoryUtilization", "DiskUtilization"), "Percent"),
        **dict.fromkeys(("MemoryUsed", "MemoryAvailable"), "Megabytes"),
        **dict.fromkeys(("DiskUsage", "DiskAvailable"), "Gigabytes"),
    }
    for line in lines:
        assert line["dimensions"] == {"Level": "Host"}
        assert 0 <= line["value"] <= (100 if line["unit"] == "Percent" else 1e9)


def test_a_server_starts_where_the_host_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'serve' in sys.orig_argv:\n"
        "    from pathlib import Path\n"
        "    from mmekit.server.host import HostMetrics\n"
        f"    HostMetrics.__init__.__defaults__ = (Path({str(tmp_path)!r}),)\n"
    )
    with Server(MMEKIT_METRIC_TIME_INTERVAL_SECONDS="0.1", PYTHONPATH=str(tmp_path)) as server:
        until(lambda: server.logged("The host's metrics cannot be read: [Errno 2]"))
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/stat").write_text("cpu none\n")
        until(lambda: server.logged("The host's metrics cannot be read: invalid literal"))
        assert server.get("/ping").status == 200


def test_memory_is_that_of_the_limit_and_the_form_that_of_mms() -> None:
    limit = 512 * 1024 * 1024
    settings = {
        "MMEKIT_METRIC_TIME_INTERVAL_SECONDS": "0.1",
        "MMEKIT_LOG_FORMAT": "mms",
        "MMEKIT_MEMORY_LIMIT_BYTES": str(limit),
    }
    with Server(**settings) as server:
        until(lambda: "MemoryUtilization" in "".join(server.raw))
    text = "".join(server.raw)
    found = re.findall(
        rf"^{TIME} \[INFO \] \S+ MMS_METRICS - "
        rf"(MemoryUsed|MemoryAvailable)\.Megabytes:(\S+)\|#Level:Host\|#hostname:{HOST},timestamp:\d+$",
        text,
        re.MULTILINE,
    )
    values = dict(found[:2])
    assert float(values["MemoryUsed"]) + float(values["MemoryAvailable"]) == pytest.approx(512)


def test_without_an_interval_there_are_no_metrics_of_the_host(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"]) as server:
        assert server.invoke("a", "echo on").text == "on"
    assert not [line for line in server.lines if "metric" in line]


# --- GET /metrics ----------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with image_server(tmp_path, ["a", 'odd "\\\n模'], MMEKIT_METRICS_MODELS="3") as server:
        yield server


def families(server: Server) -> dict[str, Metric]:
    answer = server.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    parsed = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in parsed}) == len(parsed)
    return {family.name: family for family in parsed}


def value(server: Server, name: str, **labels: str) -> float:
    """The value of one sample; 0 where it is not there."""
    samples = [
        sample
        for family in families(server).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(samples) <= 1, samples
    return samples[0].value if samples else 0


def test_every_metric_has_our_prefix_help_and_a_type(server: Server) -> None:
    server.invoke("a", "echo x")
    for name, family in families(server).items():
        assert name.startswith("mmekit_")
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        samples = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(set(samples)) == len(samples)


def test_openmetrics_is_given_to_those_who_ask_for_it(server: Server) -> None:
    server.invoke("a", "echo x")
    answer = server.request(
        "GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = {family.name for family in parse_openmetrics(answer.text)}
    assert {"mmekit_requests", "mmekit_request_seconds", "mmekit_build"} <= found


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=99.9",
        "application/openmetrics-text; version=1.0.0\xff",
        "text/plain; version=x.y",
        ";;=,=;",
    ],
)
def test_what_is_no_accept_header_gets_some_format(server: Server, accept: str) -> None:
    answer = server.request("GET", "/metrics", headers={"Accept": accept})
    assert answer.status == 200
    assert "mmekit_models" in answer.text


def test_other_methods_than_get_are_refused(server: Server) -> None:
    assert server.request("POST", "/metrics", b"").status == 405
    assert server.request("HEAD", "/metrics").status == 200
    assert server.get("/metrics/").status == 200
    assert server.get("/metrics/x").status == 404


def test_answers_are_counted_by_model_and_status(server: Server) -> None:
    not_ready = value(server, "mmekit_answers_total", status="503")  # pings at the start
    for _ in range(5):
        assert server.invoke("a", "echo x").status == 200
    assert server.invoke("a", "raise it").status == 503
    assert server.invoke("a", "status 404").status == 404
    assert server.invoke("not-there", "x").status == 404
    assert server.get("/nowhere").status == 404
    assert value(server, "mmekit_requests_total", model="a", status="2xx") == 5
    assert value(server, "mmekit_requests_total", model="a", status="4xx") == 1
    assert value(server, "mmekit_requests_total", model="a", status="5xx") == 1
    assert value(server, "mmekit_requests_total", model="other", status="4xx") == 1
    assert value(server, "mmekit_answers_total", status="503") == not_ready + 1
    assert value(server, "mmekit_answers_total", status="404") == 3


def test_names_are_escaped(server: Server) -> None:
    assert server.request("POST", "/models/odd%20%22%5C%0A%E6%A8%A1/invoke", "echo x").text == "x"
    assert value(server, "mmekit_requests_total", model='odd "\\\n模', status="2xx") == 1


def test_latency_and_time_in_the_queue_are_histograms(server: Server, tmp_path: Path) -> None:
    began = tmp_path / "began"
    first = server.later(server.invoke, "a", f"stay {began}")
    until(began.exists)
    assert value(server, "mmekit_running_calls", model="a") == 1
    second = server.later(server.invoke, "a", "echo waited")
    until(lambda: value(server, "mmekit_queue_requests", model="a") == 1)
    time.sleep(0.3)  # it takes at least as long
    began.unlink()
    assert (first.result().status, second.result().text) == (200, "waited")
    for name in ("mmekit_request_seconds", "mmekit_queue_seconds"):
        assert value(server, f"{name}_count", model="a") == 2
        assert value(server, f"{name}_bucket", model="a", le="+Inf") == 2
    assert value(server, "mmekit_request_seconds_bucket", model="a", le="0.25") == 0
    assert value(server, "mmekit_request_seconds_sum", model="a") >= 0.6
    assert value(server, "mmekit_queue_seconds_bucket", model="a", le="0.001") == 1
    assert value(server, "mmekit_queue_requests", model="a") == 0


def test_loads_and_unloads_are_counted_by_outcome(server: Server, tmp_path: Path) -> None:
    assert server.load("b", plain_model(tmp_path, "b")).status == 200
    assert server.load("b", plain_model(tmp_path, "b")).status == 409
    assert server.load("c", tmp_path / "not-there").status == 404
    assert value(server, "mmekit_models", state="ready") == 3
    assert server.unload("b").status == 200
    assert value(server, "mmekit_models", state="ready") == 2
    assert value(server, "mmekit_loads_total", status="200") == 3
    assert value(server, "mmekit_loads_total", status="409") == 1
    assert value(server, "mmekit_loads_total", status="404") == 1
    assert value(server, "mmekit_load_seconds_count") == 3
    assert value(server, "mmekit_unloads_total") == 1


def test_a_failed_load_and_a_crash_and_what_follows_are_counted(server: Server) -> None:
    assert server.load("c", MODELS / "raises_on_load", handler="inference:x").status >= 400
    starts = value(server, "mmekit_worker_starts_total", start="fork")
    assert server.invoke("a", "exit 9").status == 500
    assert server.invoke("a", "echo back").text == "back"
    assert value(server, "mmekit_worker_ends_total", reason="crash") == 1
    assert value(server, "mmekit_reloads_total", status="200") == 1
    until(lambda: value(server, "mmekit_worker_starts_total", start="fork") > starts)
    for _ in range(2):
        assert server.invoke("a", "exit 9").status == 500
    assert server.invoke("a", "echo x").status == 503
    assert value(server, "mmekit_quarantines_total") == 1
    assert value(server, "mmekit_requests_total", model="a", status="5xx") == 4


def test_a_deadline_is_counted(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="0.3") as server:
        assert server.invoke("a", "sleep 30").status == 504
        assert value(server, "mmekit_worker_ends_total", reason="deadline") == 1
        assert value(server, "mmekit_answers_total", status="504") == 1


def test_a_full_queue_is_counted(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], SAGEMAKER_MODEL_JOB_QUEUE_SIZE="1", MMEKIT_WORKERS="1") as server:
        began = tmp_path / "began"
        first = server.later(server.invoke, "a", f"stay {began}")
        until(began.exists)
        second = server.later(server.invoke, "a", "echo second")
        until(lambda: value(server, "mmekit_queue_requests", model="a") == 1)
        assert server.invoke("a", "echo third").status == 503
        began.unlink()
        assert (first.result().status, second.result().status) == (200, 200)
        assert value(server, "mmekit_requests_total", model="a", status="5xx") == 1


def test_memory_that_is_short_is_counted(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_MEMORY_LIMIT_BYTES=str(400 << 20)) as server:
        heavy = plain_model(tmp_path, "heavy")
        (heavy / "heavy_load").write_text("600")
        assert server.load("heavy", heavy).status == 507
        assert value(server, "mmekit_loads_total", status="507") == 1
        assert value(server, "mmekit_memory_limit_bytes") == 400 << 20
        assert 0 < value(server, "mmekit_memory_used_bytes") < 400 << 20
        assert value(server, "mmekit_memory_reserve_bytes") == (400 << 20) // 8
        assert value(server, "mmekit_model_copies", model="a") == 1
        assert value(server, "mmekit_workers", kind="shared") >= 1


def test_only_so_many_models_have_series_of_their_own_and_nothing_goes_back(
    server: Server, tmp_path: Path
) -> None:
    names = [f"m{number}" for number in range(4)]
    for name in names:
        assert server.load(name, plain_model(tmp_path, name)).status == 200
        assert server.invoke(name, "echo x").text == "x"
    requests = families(server)["mmekit_requests"]
    # Two came with the fixture, the first of these is the third.
    assert {sample.labels["model"] for sample in requests.samples} == {"m0", "other"}
    assert value(server, "mmekit_requests_total", model="other", status="2xx") == 3
    for name in names:
        assert server.unload(name).status == 200
    assert server.load("m0", plain_model(tmp_path, "m0")).status == 200
    assert server.load("m3", plain_model(tmp_path, "m3")).status == 200
    for name in ("m0", "m3"):
        assert server.invoke(name, "echo x").text == "x"
    assert value(server, "mmekit_requests_total", model="m0", status="2xx") == 2
    assert value(server, "mmekit_requests_total", model="other", status="2xx") == 4
    labels = {sample.labels["model"] for sample in families(server)["mmekit_model_copies"].samples}
    assert labels == {"a", 'odd "\\\n模', "m0", "other"}


def test_a_model_called_other_counts_with_the_others(server: Server, tmp_path: Path) -> None:
    assert server.load("other", plain_model(tmp_path, "other")).status == 200
    assert server.invoke("other", "echo x").text == "x"
    assert value(server, "mmekit_requests_total", model="other", status="2xx") == 1


def test_streamed_answers_that_are_cut_are_counted(tmp_path: Path) -> None:
    with Server() as server:
        assert server.load("cut", MODELS / "streams_then_raises").status == 200
        with pytest.raises(http.client.IncompleteRead):
            server.invoke("cut", b"x")
        assert value(server, "mmekit_answers_cut_total") == 1
        assert value(server, "mmekit_requests_total", model="cut", status="2xx") == 1


def test_clients_that_leave_and_refusals_are_counted(server: Server, tmp_path: Path) -> None:
    began = tmp_path / "began"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        body = f"stay {began}".encode()
        head = b"POST /models/a/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        until(began.exists)
    until(lambda: value(server, "mmekit_answers_total", status="499") == 1)
    began.unlink()
    assert value(server, "mmekit_requests_total", model="a", status="4xx") == 1
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"no http\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert value(server, "mmekit_answers_total", status="400") == 1
    assert value(server, "mmekit_http_connections") >= 1


def test_both_connectors_have_metrics() -> None:
    addresses = {
        "MMEKIT_INFERENCE_ADDRESS": "http://127.0.0.1:0",
        "MMEKIT_MANAGEMENT_ADDRESS": "http://localhost:0",
        "SAGEMAKER_BIND_TO_PORT": "",
        "MMEKIT_HOST": "",
    }
    with Server(**addresses) as server:
        assert server.addresses["inference"] != server.addresses["management"]
        for connector in ("inference", "management"):
            answer = server.request("GET", "/metrics", on=connector)
            assert (answer.status, "mmekit_models" in answer.text) == (200, True)
