"""Numbers of bytes for people."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def shown_bytes(size: int) -> str:
    """Return ``1.2 MB``, in powers of 1000 as AWS's and S3's own pages."""
    if size < 1000:
        return f"{size} bytes"
    value = float(size)
    for unit in _UNITS:
        value /= 1000
        if value < 999.5 or unit == _UNITS[-1]:
            return f"{value:.3g} {unit}"
    raise AssertionError("unreachable")
