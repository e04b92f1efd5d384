"""A snapshot as people read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmekit_toolkit.archive.sizes import shown_bytes
from mmekit_toolkit.operate import texts
from mmekit_toolkit.operate.metrics import Metrics
from mmekit_toolkit.operate.snapshot import Snapshot, Unavailable

#: How each metric is called and written; None where there is none.
_METRICS: tuple[tuple[str, Callable[[Metrics], float | None], str], ...] = (
    ("invocations", lambda m: m.invocations, "{:.0f}"),
    ("4XX errors", lambda m: m.errors_4xx, "{:.0f}"),
    ("5XX errors", lambda m: m.errors_5xx, "{:.0f}"),
    ("model latency p50", lambda m: m.latency_p50_ms, "{:.1f} ms"),
    ("model latency p99", lambda m: m.latency_p99_ms, "{:.1f} ms"),
    ("cache hits", lambda m: m.cache_hit_ratio, "{:.1%}"),
    ("model loads", lambda m: m.loads, "{:.0f}"),
    ("loading time, average", lambda m: m.loading_ms, "{:.1f} ms"),
    ("model unloads", lambda m: m.unloads, "{:.0f}"),
    ("loaded models an instance", lambda m: m.loaded_models, "{:.1f}"),
    ("memory, highest", lambda m: m.memory_percent, "{:.1f} %"),
    ("disk, highest", lambda m: m.disk_percent, "{:.1f} %"),
)
_DIGEST = "@sha256:"


def render(snapshot: Snapshot) -> str:
    """Return the snapshot as lines."""
    return "\n".join(_lines(snapshot)) + "\n"


def _lines(snapshot: Snapshot) -> Iterator[str]:
    described = snapshot.described
    state = f"{described['EndpointName']}: {described['EndpointStatus']}"
    config = described.get("EndpointConfigName", "none")
    yield f"{state}, configuration {config}, changed {texts.moment(described['LastModifiedTime'])}"
    yield from (f"  ! {finding}" for finding in snapshot.findings)
    yield ""
    yield texts.table(
        ("VARIANT", "INSTANCES", "WEIGHT", "TYPE", "IMAGE", "STATUS"), list(_variants(snapshot))
    )
    if pending := described.get("PendingDeploymentSummary"):
        yield from _pending(pending)
    yield from _part(
        "models",
        snapshot.models,
        lambda found: (
            f"{found.count} objects, {shown_bytes(found.size_bytes)}, below {found.prefix} ({found.variant})"
        ),
    )
    yield from _part("autoscaling", snapshot.autoscaling, _scaling)
    yield from _part("alarms", snapshot.alarms, lambda found: f"{found['state']:<17} {found['name']}")
    yield ""
    yield from _metrics(snapshot)


def _variants(snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    config = snapshot.config
    configured = [] if isinstance(config, Unavailable) else config["ProductionVariants"]
    types = {variant["VariantName"]: variant.get("InstanceType", "") for variant in configured}
    for variant in snapshot.described.get("ProductionVariants", configured):
        images = variant.get("DeployedImages", ())
        yield (
            variant["VariantName"],
            f"{variant.get('CurrentInstanceCount', 0)} of {_wanted(variant)}",
            f"{variant.get('CurrentWeight', variant.get('InitialVariantWeight', 0)):g}",
            types.get(variant["VariantName"], ""),
            ", ".join(_image(image) for image in images),
            ", ".join(_stage(status) for status in variant.get("VariantStatus", ())),
        )


def _wanted(variant: Mapping[str, Any]) -> int:
    return int(variant.get("DesiredInstanceCount", variant.get("InitialInstanceCount", 0)))


def _image(deployed: Mapping[str, Any]) -> str:
    """Return ``churn@sha256:0123456789ab``: a digest's first digits tell it apart."""
    full = str(deployed.get("ResolvedImage") or deployed.get("SpecifiedImage", ""))
    name, at, digest = full.partition(_DIGEST)
    return name.rpartition("/")[2] + at + digest[:12]


def _stage(status: Mapping[str, Any]) -> str:
    message = status.get("StatusMessage")
    return f"{status['Status']} ({message})" if message else str(status["Status"])


def _pending(pending: Mapping[str, Any]) -> Iterator[str]:
    since = f", since {texts.moment(pending['StartTime'])}" if "StartTime" in pending else ""
    yield f"pending deployment of {pending['EndpointConfigName']}{since}"
    for variant in pending.get("ProductionVariants", ()):
        stages = ", ".join(_stage(status) for status in variant.get("VariantStatus", ()))
        count = f"{variant.get('CurrentInstanceCount', 0)} of {_wanted(variant)} instances"
        yield f"  {variant['VariantName']}: {count}{', ' + stages if stages else ''}"


def _scaling(found: Mapping[str, Any]) -> str:
    policies = ", ".join(
        f"{policy['metric'] or policy['name']} {policy['target'] or ''}".strip()
        for policy in found["policies"]
    )
    return f"{found['variant']}: {found['min']} to {found['max']} instances, {policies or 'without a policy'}"


def _part(title: str, found: Any, line: Callable[[Any], str]) -> Iterator[str]:
    if isinstance(found, Unavailable):
        yield f"{title}: not available: {found.unavailable}"
    elif not found:
        yield f"{title}: none"
    else:
        yield f"{title}:"
        yield from (f"  {line(each)}" for each in found)


def _metrics(snapshot: Snapshot) -> Iterator[str]:
    quarter, hour = snapshot.quarter, snapshot.hour
    if isinstance(quarter, Unavailable) or isinstance(hour, Unavailable):
        part = quarter if isinstance(quarter, Unavailable) else hour
        yield from _part("metrics", part, str)
        return
    for variant, now in quarter.items():
        rows = [(name, _value(of(now), form), _value(of(hour[variant]), form)) for name, of, form in _METRICS]
        yield texts.table((variant.upper(), "15 MINUTES", "1 HOUR"), rows).rstrip()


def _value(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
