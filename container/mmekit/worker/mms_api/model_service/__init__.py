"""``mms.model_service``: base classes of services in archives for MMS 0.4."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Import a submodule: MMS imports it with the package."""
    if name == "model_service":
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
