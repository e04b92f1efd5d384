"""``mms.metrics``."""

from __future__ import annotations

import importlib
from types import ModuleType

_SUBMODULES = ("dimension", "metric", "metric_encoder", "metrics_store", "unit")


def __getattr__(name: str) -> ModuleType:
    """Import a submodule: MMS imports all of them with the package."""
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
