"""The tables keep what matters at 80 columns, and say what to do where there is nothing to show."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from rich.console import Console

from mmekit_endpoint import tables
from mmekit_endpoint.fleet.views import EndpointView, InstanceView, ModelView, VariantView

GIB = 1 << 30
FIRST, SECOND = "i-0123456789abcdef0", "i-fedcba9876543210f"
LONG = "tenant_a/classifier-with-a-rather-long-name-v2.tar.gz"


def model(target: str, state: str = "loaded", **values: Any) -> ModelView:
    defaults = {
        "model_name": "0" * 32,
        "disk_bytes": 123 << 20,
        "in_flight": 0,
        "waiting": 0,
        "last_used": 990.0,
    }
    return ModelView(**{"target_model": target, "state": state, **defaults, **values})


def instance(name: str, models: list[ModelView], **values: Any) -> InstanceView:
    defaults = {
        "state": "in service",
        "address": "127.0.0.1:34567",
        "memory_bytes": 5 * GIB,
        "memory_limit_bytes": 8 * GIB,
        "disk_bytes": 29 * GIB,
        "volume_bytes": 30 * GIB,
        "cpu_percent": 155.4,
        "in_flight": 7,
        "log": "/state/logs/x.log",
        "started": 1.0,
    }
    return InstanceView(**{"instance_id": name, "models": models, **defaults, **values})


def endpoint(instances: list[InstanceView], **values: Any) -> EndpointView:
    variant = VariantView("AllTraffic", "recommender", "ml.m5.2xlarge", 1.0, 2, True, instances)
    defaults = {
        "name": "recommendations",
        "arn": "arn",
        "region": "eu-west-1",
        "status": "InService",
        "failure_reason": None,
        "config_name": "recommendations-2026-11",
        "metrics_period_s": None,
    }
    return EndpointView(**{"variants": [variant], **defaults, **values})


def found(*endpoints: EndpointView, **statistics: Any) -> Any:
    """Return the answer of /_mmekit/status, as it is decoded."""
    values = {"endpoints": endpoints, "statistics": {"recommendations/AllTraffic": statistics}}
    return msgspec.json.decode(msgspec.json.encode(values))


BUSY = endpoint(
    [
        instance(FIRST, [model(LONG), model("b[red].tar.gz", in_flight=4, waiting=12)]),
        instance(
            SECOND,
            [
                model(
                    "c.tar.gz", "failed", disk_bytes=0, last_used=None, reason="No module named 'lightgbm'"
                ),
                model("b[red].tar.gz", "on disk", last_used=None),
            ],
            state="unhealthy",
            memory_bytes=8 * GIB,
        ),
    ]
)
STATISTICS = {
    "invocations": 123456,
    "errors_4xx": 3,
    "errors_5xx": 17,
    "hit_ratio": 0.9713,
    "loads": 40,
    "load_failures": 2,
    "evictions": 12,
    "latency_ms": {"p50": 12.3, "p90": 44, "p99": 1234},
    "load_ms": {"p50": 850, "p90": 2100, "p99": 64000},
}


def printed(
    width: int, show: Callable[..., None], answer: Any, *more: Any, encoding: str = "utf-8"
) -> list[str]:
    """Return the lines that a function prints on a terminal of that width."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    show(answer, Console(file=terminal, width=width), *more)
    terminal.seek(0)
    lines = terminal.read().splitlines()
    assert all(len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


def line_with(text: str, lines: list[str]) -> str:
    (line,) = [line for line in lines if text in line]
    return line


@pytest.mark.parametrize("width", [80, 160])
def test_status_shows_figures_and_instances(width: int) -> None:
    lines = printed(width, tables.status, found(BUSY, **STATISTICS))

    assert lines[0] == "recommendations  InService  recommendations-2026-11  eu-west-1"
    assert lines[1] == "  AllTraffic  multi-model recommender, 2 of 2 ml.m5.2xlarge, weight 1"
    assert line_with("  calls", lines).split()[1:8] == ["123,456", "12", "ms", "44", "ms", "1.2", "s"]
    assert line_with("  calls", lines).endswith("hit ratio 97.1 %, 3 × 4xx, 17 × 5xx")
    assert line_with("  loads", lines).split()[1:8] == ["40", "850", "ms", "2.1", "s", "64", "s"]
    assert line_with("  loads", lines).endswith("2 failed, 12 evicted")
    first = line_with(FIRST[:10], lines)
    assert "in service" in first
    assert " 62 %" in first
    assert " 97 %" in first
    assert first.endswith("2/2          7  155 %")
    second = line_with(SECOND[:10], lines)
    assert "unhealthy" in second
    assert "█ 100 %" in second
    assert "░" not in second.partition("100 %")[0]
    assert second.endswith("0/2          7  155 %")


def test_a_wide_status_has_sizes_and_whole_ids() -> None:
    line = line_with(FIRST, printed(160, tables.status, found(BUSY)))
    assert "5.0 GiB of 8.0 GiB" in line
    assert "29 GiB of 30 GiB" in line


def test_gpus_are_shown_where_there_are_any() -> None:
    gpu = instance(FIRST, [], gpu_percent=93.0, gpu_memory_percent=41.0)
    lines = printed(160, tables.status, found(endpoint([gpu, instance(SECOND, [])])))
    assert line_with("instance ", lines).endswith("  CPU   GPU  GPU memory")
    assert line_with(FIRST, lines).endswith(" 155 %  93 %        41 %")
    assert line_with(SECOND, lines).endswith(" 155 %")


def test_a_failed_endpoint_says_why() -> None:
    reason = "The primary container did not pass the ping health check."
    lines = printed(80, tables.status, found(endpoint([], status="Failed", failure_reason=reason)))
    assert "  Failed  " in lines[0]
    assert lines[1] == f"  {reason}"


def test_bars_are_ascii_where_the_terminal_is() -> None:
    lines = printed(80, tables.status, found(BUSY), encoding="ascii")
    assert "####..  62 %" in line_with(FIRST[:10], lines)


@pytest.mark.parametrize("width", [80, 160])
def test_models_are_sorted_with_their_instances(width: int) -> None:
    lines = printed(width, tables.models, found(BUSY), 1000.0)

    assert lines[0] == "recommendations/AllTraffic"
    text = "\n".join(lines)
    assert LONG in "".join(line[2:28].rstrip() if width == 80 else line for line in lines)
    loaded, on_disk = [line for line in lines if "b[red].tar.gz" in line]
    assert FIRST[:10] in loaded
    assert loaded.split()[1] == "loaded"
    assert "123 MiB" in loaded
    assert "10 s ago" in loaded
    assert "4 + 12" in loaded
    assert "on disk" in on_disk
    assert "never" in on_disk
    assert on_disk.endswith(" 0")
    assert text.index("b[red]") < text.index("failed") < text.index("tenant_a")
    assert "  c.tar.gz: No module named 'lightgbm'" in lines


def test_a_reason_that_holds_everywhere_is_shown_once() -> None:
    failed = model("c.tar.gz", "failed", reason="it is no archive")
    lines = printed(
        80, tables.models, found(endpoint([instance(FIRST, [failed]), instance(SECOND, [failed])]))
    )
    assert line_with("it is no archive", lines) == "  c.tar.gz: it is no archive"


EVENTS: list[dict[str, Any]] = [
    {"sequence": 1, "time": 1.0, "kind": "endpoint_change", "endpoint": "e", "text": "create: Creating"},
    {
        "sequence": 2,
        "time": 2.0,
        "kind": "loaded",
        "endpoint": "e",
        "variant": "v",
        "instance": FIRST,
        "model": LONG,
        "text": f"{LONG} in 1.234 s",
        "numbers": {"seconds": 1.234},
    },
    {
        "sequence": 3,
        "time": 3.0,
        "kind": "load_failed",
        "endpoint": "e",
        "variant": "v",
        "instance": FIRST,
        "model": "[b].tar.gz",
        "text": "it is no archive",
    },
    {"sequence": 4, "time": 4.0, "kind": "control_plane_ended", "endpoint": None, "text": "exit code 1"},
]


def clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def test_events_are_a_feed() -> None:
    lines = printed(80, tables.events, {"events": EVENTS})
    assert line_with("create", lines).split() == [clock(1), "endpoint", "change", "e", "create:", "Creating"]
    assert line_with(" loaded ", lines).split()[:3] == [clock(2), "loaded", FIRST[:10]]
    assert LONG in "".join(line[43:] for line in lines)
    assert line_with("load failed", lines).endswith("[b].tar.gz: it is no archive")
    assert "service" in line_with("control plane ended", lines)

    wide = printed(160, tables.events, {"events": EVENTS})
    assert len(wide) == len(EVENTS)
    assert f"e/v/{FIRST}" in wide[1]


def test_an_event_is_one_line() -> None:
    assert [tables.event_line(event) for event in EVENTS[1:]] == [
        f"{clock(2)}  loaded                 {FIRST}  {LONG} in 1.234 s",
        f"{clock(3)}  load failed            {FIRST}  [b].tar.gz: it is no archive",
        f"{clock(4)}  control plane ended    service              exit code 1",
    ]


@pytest.mark.parametrize(
    ("show", "answer", "hint"),
    [
        (tables.status, {"endpoints": []}, "Create one with boto3"),
        (tables.status, found(endpoint([])), "No instance runs yet: `mmekit local events`"),
        (tables.status, found(endpoint([])), "no calls yet"),
        (tables.models, {"endpoints": []}, "downloaded and loaded when it is first called"),
        (
            tables.models,
            found(endpoint([instance(FIRST, [])])),
            "downloaded and loaded when it is first called",
        ),
        (tables.events, {"events": []}, "`mmekit local events --follow`"),
    ],
)
def test_nothing_to_show_says_what_to_do(show: Callable[..., None], answer: Any, hint: str) -> None:
    assert hint in " ".join(" ".join(printed(80, show, answer)).split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (1.04, "1.0 s ago"),
        (119, "119 s ago"),
        (600, "10 min ago"),
        (9e4, "25 h ago"),
        (9e5, "10 d ago"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    used = endpoint([instance(FIRST, [model("a", last_used=1000.0 - seconds)])])
    assert text in line_with("loaded", printed(80, tables.models, found(used), 1000.0))
