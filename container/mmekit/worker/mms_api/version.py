"""``mms.version``."""

from __future__ import annotations

from mmekit.worker.mms_api import __version__

__all__ = ["__version__"]
