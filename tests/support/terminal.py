"""A pseudo-terminal on which a command has drawn."""

from __future__ import annotations

import os


def drawn(terminal: int) -> str:
    """Return all that is drawn on a terminal until nobody has its other side open, and close it.

    One read may give a part of what was written.
    """
    said = b""
    try:
        while part := os.read(terminal, 65536):
            said += part
    except OSError:
        pass  # Linux ends such a terminal with EIO
    os.close(terminal)
    return said.decode()
