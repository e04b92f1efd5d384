"""A model's sample request: kept in its archive, and sent to it while it is loaded where that is asked for.

``MAR-INF/sample-request`` is the body, byte for byte. ``MAR-INF/sample-request.json`` says how it is sent::

    {"contentType": "text/csv", "accept": "application/json", "warmUp": 1}

``accept`` may be left out. ``warmUp`` is how many times a worker predicts with the sample before it
answers the load; 0, or nothing, leaves the sample to people and tools. Reads files.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass

from mmekit.errors import InvalidModel

#: Not at the top: AWS's container for XGBoost takes every file there for a model.
BODY = "MAR-INF/sample-request"
DESCRIPTION = "MAR-INF/sample-request.json"

#: More predictions than any compiler needs to see.
MAX_WARM_UP = 100
_MAX_DESCRIPTION_BYTES = 64 * 1024
#: SageMaker takes requests of up to 25 MB (AWS: InvokeEndpoint), other callers somewhat more.
_MAX_BODY_BYTES = 100 * 1024 * 1024
_EXPECTED = 'expected {"contentType": "text/csv", "accept": …, "warmUp": 0}'


@dataclass(frozen=True)
class Sample:
    """``body`` as it would be sent with these headers; ``warm_up`` is a number of predictions."""

    body: bytes
    content_type: str
    accept: str | None = None
    warm_up: int = 0

    @property
    def description(self) -> bytes:
        """The content of ``MAR-INF/sample-request.json``."""
        fields = {"contentType": self.content_type, "accept": self.accept, "warmUp": self.warm_up}
        known = {name: value for name, value in fields.items() if value}
        return (json.dumps(known, ensure_ascii=True, indent=2) + "\n").encode()


def read_sample(folder: str) -> Sample | None:
    """Return the sample of a model's folder; None when it has none, for the price of one failed open.

    Raises InvalidModel when it cannot be used, OSError when it cannot be read.
    """
    try:
        content = _content(folder, DESCRIPTION, _MAX_DESCRIPTION_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    content_type, accept, warm_up = _parse(content)
    try:
        body = _content(folder, BODY, _MAX_BODY_BYTES)
    except FileNotFoundError:
        raise InvalidModel(f"The model has {DESCRIPTION}, but not the request itself, {BODY}.") from None
    if len(body) > _MAX_BODY_BYTES:
        raise InvalidModel(f"{BODY} has more than {_MAX_BODY_BYTES} bytes, which is no request.")
    return Sample(body, content_type, accept, warm_up)


def _content(folder: str, name: str, limit: int) -> bytes:
    """Return a file's content, one byte over the limit where it is larger."""
    with open(os.path.join(folder, name), "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidModel(f"{name} is no file.")
        return file.read(limit + 1)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe, do not wait for who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _parse(content: bytes) -> tuple[str, str | None, int]:
    try:
        if len(content) > _MAX_DESCRIPTION_BYTES:
            raise ValueError(f"it is larger than {_MAX_DESCRIPTION_BYTES} bytes")
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"Failed to parse {DESCRIPTION}: {error}; {_EXPECTED}.") from error
    if not isinstance(fields, dict):
        raise InvalidModel(f"Failed to parse {DESCRIPTION}: {_EXPECTED}, found {fields!r:.100}.")
    if unknown := sorted(fields.keys() - {"contentType", "accept", "warmUp"}):
        raise InvalidModel(f"{DESCRIPTION} has {', '.join(unknown)!r:.100}; {_EXPECTED}.")
    content_type, accept, warm_up = fields.get("contentType"), fields.get("accept"), fields.get("warmUp", 0)
    if not isinstance(content_type, str) or not _is_header(content_type):
        raise InvalidModel(f'"contentType" in {DESCRIPTION} is {content_type!r:.100}; {_EXPECTED}.')
    if accept is not None and not (isinstance(accept, str) and _is_header(accept)):
        raise InvalidModel(f'"accept" in {DESCRIPTION} is {accept!r:.100}; {_EXPECTED}.')
    if isinstance(warm_up, bool) or not isinstance(warm_up, int) or not 0 <= warm_up <= MAX_WARM_UP:
        raise InvalidModel(
            f'"warmUp" in {DESCRIPTION} is {warm_up!r:.100}; expected a number of predictions, 0 to '
            f"{MAX_WARM_UP}."
        )
    return content_type, accept, warm_up


def _is_header(value: str) -> bool:
    """Say whether a value can be sent in a header."""
    return value.isascii() and value.isprintable() and bool(value.strip())
