"""A Unix socket's file: bound where no live server has it, and removed by the one who made it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

#: struct sockaddr_un has 108 bytes for the path and its NUL (unix(7)).
_MAX_PATH_BYTES = 107


class UnixSocket:
    """A listening socket and its file. Who may connect is the umask's business, as with any file."""

    def __init__(self, path: str) -> None:
        """Bind. A file that a dead server has left is replaced. Raises OSError that says why not."""
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise OSError(
                errno.ENAMETOOLONG, f"a Unix socket's path has at most {_MAX_PATH_BYTES} bytes", path
            )
        _remove_stale(path)
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.bind(path)
            # At once: a bound file that nobody listens on is what a dead server leaves.
            self.sock.listen()
            self._file = _identity(path)
        except OSError:
            self.sock.close()
            raise

    def remove(self) -> None:
        """Remove the file, unless it is another's by now."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._file:
                os.unlink(self.path)


def _remove_stale(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file of this name, which is not a socket", path)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, "another server listens there", path) from None
        else:
            raise OSError(errno.EADDRINUSE, "another server listens there", path)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
