"""``mms.metrics.metrics_store``."""

from __future__ import annotations

from mmekit.worker.metrics import MetricsStore

__all__ = ["MetricsStore"]
