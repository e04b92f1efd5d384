"""What metrics say of an instance beyond its view's own numbers."""

from __future__ import annotations

from mmekit_endpoint.fleet.views import InstanceView


def concurrent_requests(instance: InstanceView) -> int:
    """Return how many requests are with an instance: in its container, and those that wait for a model."""
    return instance.in_flight + sum(model.waiting for model in instance.models)


def memory_percent(instance: InstanceView) -> float | None:
    """Return the share of memory in use; None where it is not limited."""
    return _percent(instance.memory_bytes, instance.memory_limit_bytes)


def disk_percent(instance: InstanceView) -> float | None:
    """Return the share of the volume that models take."""
    return _percent(instance.disk_bytes, instance.volume_bytes)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
