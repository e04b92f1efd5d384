"""Whether a service runs on a state folder: as long as it lives it holds a lock on the file ``lock``."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_served(state: Path) -> bool:
    """Whether a live service has this state folder (flock(2)); one that is gone has none."""
    try:
        with open(state / "lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it cannot be told
    return False
