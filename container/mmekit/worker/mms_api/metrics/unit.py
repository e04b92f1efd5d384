"""``mms.metrics.unit``."""

from __future__ import annotations

from mmekit.worker.metrics import Units

__all__ = ["Units"]
