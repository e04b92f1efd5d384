"""``mms.context``."""

from __future__ import annotations

from mmekit.worker.context import Context, RequestProcessor

__all__ = ["Context", "RequestProcessor"]
