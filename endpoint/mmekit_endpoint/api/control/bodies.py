"""Objects of S3 on disk: an index, and a file for each body.

A body's file is written before the index names it, is never written again, and goes after the index has
forgotten it. So whatever ends the process, the index names only bodies that are whole; files that it does not
name are removed at the next start.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mmekit_endpoint.database import StateUnusable

#: Raised by one with each change of the index's tables or records.
_VERSION = 1


class BucketRecord(msgspec.Struct, frozen=True):
    """A bucket as it was."""

    name: str
    account: str
    region: str
    #: Seconds since the epoch.
    created: float
    versioning: str | None
    tags: dict[str, str]


class ObjectRecord(msgspec.Struct, frozen=True):
    """The current version of an object as it was, and its body's file."""

    bucket: str
    key: str
    file: str
    size: int
    etag: str
    #: Seconds since the epoch.
    modified: float
    #: Content type and user metadata.
    metadata: dict[str, str]
    #: What moto has of an object beside: storage class, encryption, checksum, by moto's names.
    attributes: dict[str, Any]
    tags: dict[str, str]


class Body:
    """A body's file as moto reads it: a file object that is open only while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; there is no other origin than the start."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a body is read from its start")
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, or all that are left."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Do nothing: the file belongs to the index."""


class Bodies:
    """The folder of the index and the bodies. For one thread at a time.

    Raises
    ------
    StateUnusable
        When the index was written by a later mmekit, or is no database.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "bodies"
        self._folder.mkdir(parents=True, exist_ok=True)
        path = folder / "index.sqlite"
        self._index = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._index.execute("PRAGMA journal_mode = WAL")
            self._index.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._index.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise StateUnusable(
                f"{path} cannot be used: {error}. Name another folder as the state."
            ) from error
        if version > _VERSION:
            raise StateUnusable(f"{path} was written by a later mmekit; name another folder as the state.")
        self._index.executescript(
            f"""
            BEGIN;
            CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, record TEXT NOT NULL);
            CREATE TABLE IF NOT EXISTS objects (
                bucket TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (bucket, name)
            );
            PRAGMA user_version = {_VERSION};
            COMMIT;
            """
        )

    def path(self, file: str) -> Path:
        """Return where a body's file is."""
        return self._folder / file

    def new_file(self, bucket: str, key: str) -> str:
        """Return the name of a file for an object's body that no other body has or had."""
        return f"{hashlib.sha256(f'{bucket}/{key}'.encode()).hexdigest()[:32]}-{uuid.uuid4().hex[:12]}"

    def read(self) -> tuple[list[BucketRecord], list[ObjectRecord]]:
        """Return all that the index has, and remove files that it does not name."""
        buckets = [
            msgspec.json.decode(record, type=BucketRecord)
            for (record,) in self._index.execute("SELECT record FROM buckets")
        ]
        objects = [
            msgspec.json.decode(record, type=ObjectRecord)
            for (record,) in self._index.execute("SELECT record FROM objects")
        ]
        self._remove({path.name for path in self._folder.iterdir()} - {record.file for record in objects})
        return buckets, objects

    def write(
        self,
        *,
        buckets: Iterable[BucketRecord],
        objects: Iterable[ObjectRecord],
        gone_buckets: Iterable[str],
        gone_objects: Iterable[tuple[str, str]],
        unused: Iterable[str],
    ) -> None:
        """Write all of a change, or nothing; then remove bodies that are not used any more."""
        self._index.execute("BEGIN IMMEDIATE")
        try:
            self._index.executemany("DELETE FROM buckets WHERE name = ?", [(name,) for name in gone_buckets])
            self._index.executemany("DELETE FROM objects WHERE bucket = ? AND name = ?", gone_objects)
            self._index.executemany(
                "INSERT OR REPLACE INTO buckets VALUES (?, ?)",
                [(bucket.name, msgspec.json.encode(bucket).decode()) for bucket in buckets],
            )
            self._index.executemany(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)",
                [(entry.bucket, entry.key, msgspec.json.encode(entry).decode()) for entry in objects],
            )
        except BaseException:
            self._index.execute("ROLLBACK")
            raise
        self._index.execute("COMMIT")
        self._remove(unused)

    def _remove(self, files: Iterable[str]) -> None:
        for file in files:
            self.path(file).unlink(missing_ok=True)
