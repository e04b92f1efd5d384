"""Downloads an archive over http or https; urllib is slow to import, so this module is imported late."""

from __future__ import annotations

import http.client
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError

from mmekit.archive.unpack import cannot_write
from mmekit.errors import DownloadModelError, ModelNotFound

_CHUNK_BYTES = 256 * 1024


def download(
    url: str, target: Path, max_bytes: int, deadline: float, silence_s: float, check: Callable[[], None]
) -> None:
    """Write what a url answers with to ``target``, a new file. Redirects within http(s) are followed.

    Raises DownloadModelError for an answer other than 200, a connection that fails, ends early or stands
    still for ``silence_s``, a download that has not ended at ``deadline`` (of ``time.monotonic``), or more
    than ``max_bytes``; ModelNotFound for a url that is none; what ``check`` raises, which is called with
    each part that comes.
    """
    received = 0
    try:
        with _opener().open(url, timeout=silence_s) as response:
            if response.status != 200:
                raise _failed(url, f", code: {response.status}")
            expected = response.length  # None when it is not said
            if expected is not None and expected > max_bytes:
                raise _too_large(url, max_bytes)
            with _Target(url, target) as out:
                while chunk := response.read1(_CHUNK_BYTES):
                    received += len(chunk)
                    if received > max_bytes:
                        raise _too_large(url, max_bytes)
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    check()
                    out.write(chunk)
            if expected is not None and received < expected:
                raise _failed(url, f" (the connection ended after {received} of {expected} bytes)")
    except HTTPError as error:
        error.close()
        raise _failed(url, f", code: {error.code}") from error
    except TimeoutError as error:
        raise DownloadModelError(f"Download model timeout: {url:.500}") from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise DownloadModelError(f"Download model timeout: {url:.500}") from error
        raise _failed(url, f" ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise ModelNotFound(f"Invalid model url: {url!r:.500} ({error}).") from error
    except (http.client.HTTPException, OSError) as error:
        raise _failed(url, f" ({str(error) or type(error).__name__})") from error


class _Target:
    """The file on this side: its errors are the disk's, not the connection's."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path
        self._written = 0

    def __enter__(self) -> _Target:
        try:
            self._file = self._path.open("xb", buffering=0)
        except OSError as error:
            raise cannot_write(self._url, self._path.parent, 0, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise cannot_write(self._url, self._path.parent, self._written, error) from error
        self._written += len(data)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone; urllib's own also opens ftp, file and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _failed(url: str, reason: str) -> DownloadModelError:
    return DownloadModelError(f"Failed to download model from: {url:.500}{reason}")


def _too_large(url: str, max_bytes: int) -> DownloadModelError:
    return _failed(
        url, f" (it has more than {max_bytes} bytes; raise MMEKIT_MAX_UNPACKED_BYTES if that is meant)"
    )
