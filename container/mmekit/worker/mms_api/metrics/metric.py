"""``mms.metrics.metric``."""

from __future__ import annotations

from mmekit.worker.metrics import Metric

__all__ = ["Metric"]
