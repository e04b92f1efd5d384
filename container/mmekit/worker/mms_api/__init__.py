"""MMS's package ``mms`` as handlers know it; ``mms_modules`` makes it importable under that name."""

from __future__ import annotations

import importlib
from types import ModuleType

#: The version of MMS whose names and behaviour these modules have.
__version__ = "1.1.11"

_SUBMODULES = ("context", "metrics", "model_service", "service", "utils", "version")


def __getattr__(name: str) -> ModuleType:
    """Import a submodule: in MMS's workers ``import mms`` is enough to use them."""
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
