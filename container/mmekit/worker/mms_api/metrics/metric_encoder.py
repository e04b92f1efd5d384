"""``mms.metrics.metric_encoder``."""

from __future__ import annotations

from mmekit.worker.metrics import MetricEncoder

__all__ = ["MetricEncoder"]
