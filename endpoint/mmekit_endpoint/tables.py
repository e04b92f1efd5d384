"""What ``mmekit local status|models|events`` show: the JSON of the service's own routes, for people.

``status`` and ``models`` take the answer of ``/_mmekit/status``: ``endpoints`` are EndpointViews of
`fleet.views`, ``statistics`` are by "endpoint/variant" and may lack anything. ``events`` takes that of
``/_mmekit/events``. Names are what users chose: text, never markup.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: Decoded JSON. Any: the service may be of another version.
Json = Any

#: Columns of a terminal from which on there is room for long names and wide bars.
_WIDE = 150

#: Shares of a capacity in percent from which on they are shown as high, and as full.
_HIGH, _FULL = 70, 90

#: Of states and statuses; all others are on their way.
_STYLES = {
    "InService": "green",
    "in service": "green",
    "loaded": "green",
    "on disk": "dim",
    "Failed": "red",
    "failed": "red",
    "unhealthy": "red",
}
_ON_ITS_WAY = "yellow"

#: Words in the kinds of events that tell of trouble.
_TROUBLE = ("failed", "unhealthy", "lost", "not_replaced", "ended")


def status(found: Json, console: Console) -> None:
    """Print endpoints and their instances: memory, disk, loaded models; calls, hit ratio, loads, times."""
    if not found["endpoints"]:
        _hint(
            console,
            "There is no endpoint yet. Create one with boto3, the aws command or the sagemaker SDK: with "
            "AWS_ENDPOINT_URL set to this address they come here. Or start `mmekit local --models FOLDER`.",
        )
    for endpoint in found["endpoints"]:
        console.print(_endpoint_title(endpoint))
        if endpoint["failure_reason"]:
            _indented(console, Text(endpoint["failure_reason"], "red"))
        for variant in endpoint["variants"]:
            _indented(console, _variant_title(variant))
            snapshot = found.get("statistics", {}).get(f"{endpoint['name']}/{variant['name']}") or {}
            _indented(console, _figures(snapshot))
            if variant["instances"]:
                _indented(console, _instances(variant["instances"], console))
            elif endpoint["status"] != "Failed":
                _hint(console, "  No instance runs yet: `mmekit local events` shows what is being done.")
        console.print()


def models(found: Json, console: Console, now: float | None = None) -> None:
    """Print which models are on which instances, in what state, and when they were last used."""
    now = time.time() if now is None else now
    empty = True
    for endpoint in found["endpoints"]:
        for variant in endpoint["variants"]:
            instances = variant["instances"]
            if any(instance["models"] for instance in instances):
                empty = False
                console.print(Text(f"{endpoint['name']}/{variant['name']}", "bold"))
                _indented(console, _models(instances, console, now))
                for reason in _reasons(instances):
                    _indented(console, reason)
                console.print()
    if empty:
        _hint(
            console,
            "No model is on an instance yet: each is downloaded and loaded when it is first called, as with "
            "invoke_endpoint(EndpointName=…, TargetModel=…). `mmekit local status` shows the endpoints.",
        )


def events(found: Json, console: Console) -> None:
    """Print what happened, the oldest first."""
    if not found["events"]:
        _hint(
            console, "Nothing has happened yet. `mmekit local events --follow` shows what does from now on."
        )
        return
    wide = console.width >= _WIDE
    feed = Table.grid(padding=(0, 2, 0, 0))
    feed.add_column(no_wrap=True, style="dim")
    feed.add_column(no_wrap=True)
    feed.add_column(no_wrap=True, max_width=None if wide else 16)
    feed.add_column(overflow="fold")
    for event in found["events"]:
        kind = event["kind"]
        places = _places(event)
        feed.add_row(
            _clock(event["time"]),
            Text(kind.replace("_", " "), "red" if any(word in kind for word in _TROUBLE) else ""),
            Text("/".join(places)) if wide else _instance(places[-1], console),
            Text(_what(event)),
        )
    console.print(feed)


def event_line(event: Json) -> str:
    """Return an event as one line, for a feed that goes on."""
    kind = event["kind"].replace("_", " ")
    return f"{_clock(event['time'])}  {kind:<21}  {_places(event)[-1]:<19}  {_what(event)}".rstrip()


# --- status


def _endpoint_title(endpoint: Json) -> Text:
    state = endpoint["status"]
    return Text.assemble(
        (endpoint["name"], "bold"),
        "  ",
        (state, _STYLES.get(state, _ON_ITS_WAY)),
        f"  {endpoint['config_name']}  {endpoint['region']}",
    )


def _variant_title(variant: Json) -> Text:
    kind = "multi-model" if variant["multi_model"] else "single model"
    return Text.assemble(
        (variant["name"], "bold"),
        f"  {kind} {variant['model_name']}, {len(variant['instances'])} of {variant['desired_count']} "
        f"{variant['instance_type']}, weight {variant['weight']:g}",
    )


def _figures(snapshot: Json) -> RenderableType:
    """Return what is known of calls and loads, with percentiles of their times."""
    if not snapshot.get("invocations") and not snapshot.get("loads"):
        return Text("no calls yet", "dim")
    hit_ratio = snapshot.get("hit_ratio")
    calls = [] if hit_ratio is None else [f"hit ratio {100 * hit_ratio:.1f} %"]
    calls += _counts(snapshot, ("errors_4xx", "× 4xx"), ("errors_5xx", "× 5xx"))
    loads = _counts(snapshot, ("load_failures", "failed"), ("evictions", "evicted"))
    table = _table()
    table.add_column("")
    for header in ("number", "p50", "p90", "p99"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("")
    for label, count, times, more in (
        ("calls", "invocations", "latency_ms", calls),
        ("loads", "loads", "load_ms", loads),
    ):
        percentiles = snapshot.get(times) or {}
        table.add_row(
            Text(label, "dim"),
            f"{snapshot.get(count) or 0:,}",
            *(_milliseconds(percentiles.get(name)) for name in ("p50", "p90", "p99")),
            ", ".join(more),
        )
    return table


def _counts(snapshot: Json, *labels: tuple[str, str]) -> list[str]:
    return [f"{snapshot[name]:,} {label}" for name, label in labels if snapshot.get(name)]


def _milliseconds(value: float | None) -> str:
    return "" if value is None else _duration(value / 1000)


def _instances(instances: list[Json], console: Console) -> Table:
    cells = 10 if console.width >= _WIDE else 6
    has_gpu = any(instance.get("gpu_percent") is not None for instance in instances)
    table = _table()
    for header in ("instance", "state", "memory", "disk"):
        table.add_column(header, no_wrap=True)
    for header in ("loaded", "in flight", "CPU", *(["GPU", "GPU memory"] if has_gpu else [])):
        table.add_column(header, justify="right", no_wrap=True)
    for instance in instances:
        loaded = sum(model["state"] in ("loaded", "unloading") for model in instance["models"])
        state = instance["state"]
        gpu = [_percent(instance.get("gpu_percent")), _percent(instance.get("gpu_memory_percent"))]
        table.add_row(
            _instance(instance["instance_id"], console),
            Text(state, _STYLES.get(state, _ON_ITS_WAY)),
            _share(instance["memory_bytes"], instance["memory_limit_bytes"], cells, console),
            _share(instance["disk_bytes"], instance["volume_bytes"], cells, console),
            f"{loaded}/{len(instance['models'])}",
            str(instance["in_flight"]),
            _percent(instance["cpu_percent"]),
            *(gpu if has_gpu else []),
        )
    return table


def _instance(name: str, console: Console) -> Text:
    """Return an instance's id, or what begins it where there is little room."""
    return Text(name[:10] if name.startswith("i-") and console.width < _WIDE else name)


def _share(used: int, capacity: int, cells: int, console: Console) -> Text:
    """Draw how much of a capacity is used: bar, percent and, where there is room, sizes."""
    if not capacity:
        return Text(_size(used))
    percent = 100 * used / capacity
    full = min(cells, round(cells * percent / 100))
    done, left = ("#", ".") if console.options.ascii_only else ("█", "░")
    style = "red" if percent >= _FULL else "yellow" if percent >= _HIGH else "green"
    text = Text.assemble((done * full, style), (left * (cells - full), "dim"), f" {percent:3.0f} %")
    if console.width >= _WIDE:
        text.append(f"  {_size(used)} of {_size(capacity)}", "dim")
    return text


# --- models


def _models(instances: list[Json], console: Console, now: float) -> Table:
    table = _table()
    table.add_column("model", overflow="fold", min_width=16)
    for header in ("state", "instance"):
        table.add_column(header, no_wrap=True)
    for header in ("size", "last used", "in flight"):
        table.add_column(header, justify="right", no_wrap=True)
    waiting = " waiting" if console.width >= _WIDE else ""
    rows = [(model, instance["instance_id"]) for instance in instances for model in instance["models"]]
    for model, instance_id in sorted(rows, key=lambda row: (row[0]["target_model"], row[1])):
        state, last_used = model["state"], model["last_used"]
        table.add_row(
            Text(model["target_model"]),
            Text(state, _STYLES.get(state, _ON_ITS_WAY)),
            _instance(instance_id, console),
            _size(model["disk_bytes"]) if model["disk_bytes"] else "",
            "never" if last_used is None else _ago(now - last_used),
            f"{model['in_flight']}" + (f" + {model['waiting']}{waiting}" if model["waiting"] else ""),
        )
    return table


def _reasons(instances: list[Json]) -> Iterator[Text]:
    """Yield why models failed; a reason that holds on all instances once."""
    models = (model for instance in instances for model in instance["models"] if model.get("reason"))
    for target, reason in sorted({(model["target_model"], model["reason"]) for model in models}):
        yield Text.assemble((target, "red"), f": {reason}")


# --- events


def _places(event: Json) -> list[str]:
    """Return where an event happened, the widest place first; at least one."""
    names = [event.get(name) for name in ("endpoint", "variant", "instance")]
    return [name for name in names if name] or ["service"]


def _what(event: Json) -> str:
    model, text = event.get("model") or "", event["text"]
    return text if model in text else f"{model}: {text}" if text else model


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


# --- parts


def _table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim"
    )


def _indented(console: Console, part: RenderableType) -> None:
    console.print(Padding(part, (0, 0, 0, 2), expand=False))


def _hint(console: Console, text: str) -> None:
    console.print(Text(text, "dim"))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _ago(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for limit, unit, divisor in ((120, "s", 1), (2 * 3600, "min", 60), (2 * 86400, "h", 3600)):
        if seconds < limit:
            value = seconds / divisor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
