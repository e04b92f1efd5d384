"""``mms.metrics.dimension``."""

from __future__ import annotations

from mmekit.worker.metrics import Dimension

__all__ = ["Dimension"]
