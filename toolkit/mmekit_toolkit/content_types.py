"""What the name of a file with a request says of its content type."""

from __future__ import annotations

import mimetypes
from pathlib import Path

#: Suffix → content type, as the built-in handlers take them; ``mimetypes`` knows few of these.
KNOWN = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".libsvm": "text/libsvm",
    ".npy": "application/x-npy",
    ".parquet": "application/x-parquet",
    ".svm": "text/libsvm",
    ".txt": "text/plain",
}


def of_file(file: Path) -> str | None:
    """Return the content type that a file's suffix stands for, None when nobody knows it."""
    return KNOWN.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0]
