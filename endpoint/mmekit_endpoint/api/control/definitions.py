"""Models, endpoint configurations and tags in the database: what only the control plane reads and writes.

A service is one account whose regions share all names: what was made in one region is found from each, a name
is taken in all, and only the ARN tells the region. AWS has the same name once in each region.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from mmekit_endpoint.database import Database, insert_definition, insert_tags


class Definition(msgspec.Struct, frozen=True):
    """A model or an endpoint configuration: the request that made it."""

    name: str
    arn: str
    #: Seconds since the epoch.
    created: float
    body: dict[str, Any]


class Definitions:
    """The tables of definitions and tags. A ``kind`` is MODEL or ENDPOINT_CONFIG."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, kind: str, name: str, arn: str, body: Mapping[str, Any], tags: Mapping[str, str] | None = None
    ) -> bool:
        """Write a definition with its tags; return False where its name is taken."""
        try:
            with self._database.writing() as connection:
                insert_definition(connection, kind, name, arn, time.time(), body)
                insert_tags(connection, arn, tags or {})
        except sqlite3.IntegrityError:
            return False
        return True

    def get(self, kind: str, name: str) -> Definition | None:
        """Return the definition of that name."""
        row = (
            self._database.connection()
            .execute(
                "SELECT name, arn, created, body FROM definitions WHERE kind = ? AND name = ?", (kind, name)
            )
            .fetchone()
        )
        return None if row is None else _definition(row)

    def list(self, kind: str) -> list[Definition]:
        """Return all definitions of a kind, the oldest first."""
        rows = self._database.connection().execute(
            "SELECT name, arn, created, body FROM definitions WHERE kind = ? ORDER BY created, name", (kind,)
        )
        return [_definition(row) for row in rows]

    def remove(self, kind: str, name: str) -> bool:
        """Remove a definition with its tags; return False where there is none."""
        with self._database.writing() as connection:
            row = connection.execute(
                "DELETE FROM definitions WHERE kind = ? AND name = ? RETURNING arn", (kind, name)
            ).fetchone()
            if row is not None:
                connection.execute("DELETE FROM tags WHERE arn = ?", row)
        return row is not None

    def taken_arn(self, kind: str, name: str) -> str | None:
        """Return the ARN of what has that name, whatever its case and region."""
        row = (
            self._database.connection()
            .execute("SELECT arn FROM definitions WHERE kind = ? AND lower(name) = lower(?)", (kind, name))
            .fetchone()
        )
        return None if row is None else str(row[0])

    def has_arn(self, arn: str) -> bool:
        """Say whether a definition or an endpoint has that ARN."""
        query = (
            "SELECT 1 FROM definitions WHERE arn = :arn UNION ALL SELECT 1 FROM endpoints WHERE arn = :arn"
        )
        return self._database.connection().execute(query, {"arn": arn}).fetchone() is not None

    def tags(self, arn: str) -> dict[str, str]:
        """Return a resource's tags, in the order of their keys."""
        rows = self._database.connection().execute(
            "SELECT name, value FROM tags WHERE arn = ? ORDER BY name", (arn,)
        )
        return dict(rows.fetchall())

    def add_tags(self, arn: str, tags: Mapping[str, str], *, limit: int) -> bool:
        """Add tags, or give those that are there another value; return False where they would be too many."""
        with self._database.writing() as connection:
            if len(self.tags(arn).keys() | tags.keys()) > limit:
                return False
            insert_tags(connection, arn, tags)
        return True

    def remove_tags(self, arn: str, names: tuple[str, ...]) -> None:
        """Remove tags; those that are not there are none."""
        with self._database.writing() as connection:
            connection.executemany(
                "DELETE FROM tags WHERE arn = ? AND name = ?", [(arn, name) for name in names]
            )


def _definition(row: tuple[Any, ...]) -> Definition:
    name, arn, created, body = row
    return Definition(name, arn, created, msgspec.json.decode(body, type=dict[str, Any]))
