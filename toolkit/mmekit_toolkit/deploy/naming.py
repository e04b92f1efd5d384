"""Names that follow from content: the same content has the same name in each run, other content another.

So a run finds what an earlier one made before it was cut off, and an update overwrites nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

#: Hexadecimal digits at the end of a name.
_DIGITS = 8


def named(endpoint: str, content: Mapping[str, Any]) -> str:
    """Return ``ENDPOINT-1a2b3c4d`` for a resource of that content, whatever the order of its members."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{endpoint}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def is_of(endpoint: str, name: str) -> bool:
    """Say whether a name is one that `named` may have made for the endpoint."""
    return re.fullmatch(rf"{re.escape(endpoint)}-[0-9a-f]{{{_DIGITS}}}", name) is not None
