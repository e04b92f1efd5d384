"""All sabotages: importing their modules fills the registry."""

from __future__ import annotations

from . import allowed, invoking, listing, loading, start
from .registry import SABOTAGES

__all__ = ["SABOTAGES", "allowed", "invoking", "listing", "loading", "start"]
