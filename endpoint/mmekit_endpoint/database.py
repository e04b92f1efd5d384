"""The state of a service in one SQLite file, and all that its two processes know of each other.

The control plane writes definitions and what is wanted of endpoints; the fleet's reconciler watches
``data_version``, does it, and writes back how far it is. Neither holds anything that is not here.

A change of an endpoint lives from ``create_endpoint`` or ``change_endpoint`` to ``settle`` or ``forget``.
Each has a generation, and whoever writes about a change names it: a reconciler that is late changes nothing.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mmekit_endpoint.definitions import CREATE, START, EndpointRow, EndpointSpec, VariantState

#: The account that everything belongs to; moto has the same.
ACCOUNT = "123456789012"

#: What a resource is, as ARNs spell it.
MODEL, ENDPOINT_CONFIG, ENDPOINT = "model", "endpoint-config", "endpoint"

#: Name of the file in the state folder.
FILE_NAME = "state.sqlite"

#: Raised by one with each change of the tables; a file with a higher number is of a later mmekit.
SCHEMA_VERSION = 1

#: For how long a write waits for another connection's to end. Writes take well under a millisecond.
BUSY_TIMEOUT_S = 20.0

#: Between two tries to give a new file its write-ahead log, in seconds.
_WAL_PAUSE_S = 0.01

#: Names are unique whatever their case, since ARNs have them in lower case.
_SCHEMA = """
CREATE TABLE definitions (
    kind TEXT NOT NULL, name TEXT NOT NULL, arn TEXT NOT NULL UNIQUE, created REAL NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (kind, name)
);
CREATE UNIQUE INDEX definitions_by_lower_name ON definitions (kind, lower(name));
CREATE TABLE endpoints (
    name TEXT NOT NULL PRIMARY KEY, arn TEXT NOT NULL UNIQUE, region TEXT NOT NULL,
    status TEXT NOT NULL, failure_reason TEXT, spec TEXT, target TEXT, change TEXT,
    generation INTEGER NOT NULL, variants TEXT NOT NULL, config_name TEXT NOT NULL, deployment TEXT,
    created REAL NOT NULL, modified REAL NOT NULL
);
CREATE UNIQUE INDEX endpoints_by_lower_name ON endpoints (lower(name));
-- The highest generation of endpoints that are gone: those of the same names later go on from there.
CREATE TABLE gone (generation INTEGER NOT NULL);
INSERT INTO gone VALUES (0);
CREATE TABLE tags (
    arn TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, name)
) WITHOUT ROWID;
"""

_ROW = (
    "name, arn, region, status, failure_reason, spec, target, change, generation, variants, created, modified"
)

_encode = msgspec.json.Encoder().encode


class StateUnusable(Exception):
    """Raised when the state's file cannot be opened: written by a later mmekit, or no database at all."""


class EndpointNotes(NamedTuple):
    """What an endpoint's row has beside `EndpointRow`."""

    #: Of the configuration that serves, or where none ever did, of the one that was wanted.
    config_name: str
    #: DeploymentConfig of the last change.
    deployment: dict[str, Any] | None


def resource_arn(region: str, kind: str, name: str) -> str:
    """Return the ARN of a model, endpoint configuration or endpoint; AWS has names in lower case there."""
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind}/{name.lower()}"


class Database:
    """The state's tables. Any thread of any process may use it; each thread has a connection of its own.

    Raises
    ------
    StateUnusable
        When the file was written by a later mmekit, or is no database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections of all threads; nobody may use the database any more."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    # --- the reconciler's side

    def data_version(self) -> int:
        """Return a number that is another one after any other connection has written. Cheap."""
        (version,) = self.connection("watching").execute("PRAGMA data_version").fetchone()
        return int(version)

    def endpoints(self) -> list[EndpointRow]:
        """Return all endpoints, the oldest first."""
        rows = self.connection().execute(f"SELECT {_ROW} FROM endpoints ORDER BY created, name")
        return [_endpoint_row(row) for row in rows]

    def endpoint(self, name: str) -> EndpointRow | None:
        """Return the endpoint of that name."""
        row = self.connection().execute(f"SELECT {_ROW} FROM endpoints WHERE name = ?", (name,)).fetchone()
        return None if row is None else _endpoint_row(row)

    def resume(self) -> None:
        """Let everything that served when an earlier service ended be started again.

        Called once when a service starts, before anything runs. Changes that were under way stay wanted, but
        an update that was being rolled back is over: what served before is started.
        """
        now = time.time()
        with self.writing() as connection:
            for row in self.endpoints():
                if row.status == "Failed":
                    continue
                stopped = tuple(msgspec.structs.replace(variant, current_count=0) for variant in row.variants)
                served = row.change is None or row.status == "RollingBack"
                if served and row.spec is not None:
                    connection.execute(
                        "UPDATE endpoints SET status = 'SystemUpdating', change = ?, target = spec,"
                        " generation = generation + 1, variants = ?, modified = ? WHERE name = ?",
                        (START, _json(stopped), now, row.name),
                    )
                else:
                    connection.execute(
                        "UPDATE endpoints SET variants = ? WHERE name = ?", (_json(stopped), row.name)
                    )

    def progress(
        self,
        name: str,
        generation: int,
        *,
        status: str | None = None,
        variants: tuple[VariantState, ...] | None = None,
    ) -> bool:
        """Write how an endpoint is now; return False, with nothing written, where the generation is over."""
        states = None if variants is None else _json(variants)
        with self.writing() as connection:
            cursor = connection.execute(
                "UPDATE endpoints SET"
                " modified = CASE WHEN coalesce(:status, status) = status THEN modified ELSE :now END,"
                " status = coalesce(:status, status), variants = coalesce(:variants, variants)"
                " WHERE name = :name AND generation = :generation",
                {
                    "status": status,
                    "variants": states,
                    "now": time.time(),
                    "name": name,
                    "generation": generation,
                },
            )
        return cursor.rowcount == 1

    def settle(
        self,
        name: str,
        generation: int,
        *,
        status: str,
        failure_reason: str | None,
        spec: EndpointSpec | None,
        variants: tuple[VariantState, ...],
    ) -> bool:
        """End a change: ``spec`` is what serves from now on. Return False where the generation is over."""
        with self.writing() as connection:
            cursor = connection.execute(
                "UPDATE endpoints SET status = :status, failure_reason = :reason, spec = :spec,"
                " target = NULL, change = NULL, variants = :variants, modified = :now,"
                " config_name = coalesce(:config_name, config_name)"
                " WHERE name = :name AND generation = :generation",
                {
                    "status": status,
                    "reason": failure_reason,
                    "spec": _json(spec),
                    "variants": _json(variants),
                    "config_name": None if spec is None else spec.config_name,
                    "now": time.time(),
                    "name": name,
                    "generation": generation,
                },
            )
        return cursor.rowcount == 1

    def forget(self, name: str, generation: int) -> bool:
        """End a deletion: the endpoint and its tags go. Return False where the generation is over."""
        with self.writing() as connection:
            row = connection.execute(
                "DELETE FROM endpoints WHERE name = ? AND generation = ? RETURNING arn", (name, generation)
            ).fetchone()
            if row is not None:
                connection.execute("DELETE FROM tags WHERE arn = ?", row)
                connection.execute("UPDATE gone SET generation = max(generation, ?)", (generation,))
        return row is not None

    # --- the control plane's side; what else it writes is in `mmekit_endpoint.api.control.definitions`

    def find_endpoint_arn(self, name: str) -> str | None:
        """Return the ARN of the endpoint of that name, whatever its case."""
        row = (
            self.connection()
            .execute("SELECT arn FROM endpoints WHERE lower(name) = lower(?)", (name,))
            .fetchone()
        )
        return None if row is None else str(row[0])

    def create_endpoint(
        self,
        name: str,
        arn: str,
        region: str,
        target: EndpointSpec,
        *,
        deployment: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Write an endpoint that is wanted; return False where its name is taken."""
        try:
            with self.writing() as connection:
                insert_endpoint(connection, name, arn, region, target, deployment, time.time())
                insert_tags(connection, arn, tags or {})
        except sqlite3.IntegrityError:
            return False
        return True

    def change_endpoint(
        self,
        name: str,
        generation: int,
        *,
        status: str,
        change: str,
        target: EndpointSpec | None,
        deployment: Mapping[str, Any] | None = None,
        retain_deployment: bool = True,
    ) -> bool:
        """Write what is wanted of an endpoint; return False where a newer generation wants something else."""
        with self.writing() as connection:
            cursor = connection.execute(
                "UPDATE endpoints SET status = :status, change = :change, target = :target,"
                " generation = generation + 1, modified = :now,"
                " failure_reason = CASE WHEN :change = 'delete' THEN failure_reason ELSE NULL END,"
                " deployment = CASE WHEN :retain THEN deployment ELSE :deployment END"
                " WHERE name = :name AND generation = :generation AND change IS NULL",
                {
                    "status": status,
                    "change": change,
                    "target": _json(target),
                    "now": time.time(),
                    "retain": retain_deployment,
                    "deployment": _json(deployment),
                    "name": name,
                    "generation": generation,
                },
            )
        return cursor.rowcount == 1

    def endpoint_notes(self, name: str) -> EndpointNotes | None:
        """Return what only DescribeEndpoint wants to know of an endpoint."""
        query = "SELECT config_name, deployment FROM endpoints WHERE name = ?"
        row = self.connection().execute(query, (name,)).fetchone()
        if row is None:
            return None
        config_name, deployment = row
        return EndpointNotes(config_name, None if deployment is None else msgspec.json.decode(deployment))

    # --- connections

    def connection(self, role: str = "working") -> sqlite3.Connection:
        """Return the calling thread's connection, for reading."""
        existing: sqlite3.Connection | None = getattr(self._local, role, None)
        if existing is not None:
            return existing
        # Used by this thread alone, but closed by the one that ends the service.
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        with self._lock:
            self._connections.append(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        setattr(self._local, role, connection)
        return connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction of the calling thread; it is rolled back when its block raises."""
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _prepare(self) -> None:
        try:
            connection = self.connection()
            _use_wal(connection)
            with self.writing():
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            raise StateUnusable(
                f"{self._path} cannot be used as the state of a local endpoint: {error}. "
                "Name another folder as the state, or remove that file: definitions start afresh then."
            ) from error
        if version > SCHEMA_VERSION:
            raise StateUnusable(
                f"{self._path} was written by a later mmekit (its tables have version {version}, this one "
                f"knows {SCHEMA_VERSION}). Use that mmekit, or name another folder as the state."
            )


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let a file have a write-ahead log. SQLite does not wait for another process that does the same now."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return  # not a question: some file systems have no place for one, and go on without
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE_S)


def _json(value: Any) -> str | None:
    return None if value is None else _encode(value).decode()


def _endpoint_row(row: tuple[Any, ...]) -> EndpointRow:
    name, arn, region, status, reason, spec, target, change, generation, variants, created, modified = row
    return EndpointRow(
        name=name,
        arn=arn,
        region=region,
        status=status,
        failure_reason=reason,
        spec=None if spec is None else msgspec.json.decode(spec, type=EndpointSpec),
        target=None if target is None else msgspec.json.decode(target, type=EndpointSpec),
        change=change,
        generation=generation,
        variants=msgspec.json.decode(variants, type=tuple[VariantState, ...]),
        created=created,
        modified=modified,
    )


def insert_definition(
    connection: sqlite3.Connection, kind: str, name: str, arn: str, created: float, body: Mapping[str, Any]
) -> None:
    """Write a model or an endpoint configuration; sqlite3.IntegrityError where its name is taken."""
    connection.execute(
        "INSERT INTO definitions (kind, name, arn, created, body) VALUES (?, ?, ?, ?, ?)",
        (kind, name, arn, created, _json(body)),
    )


def insert_endpoint(
    connection: sqlite3.Connection,
    name: str,
    arn: str,
    region: str,
    target: EndpointSpec,
    deployment: Mapping[str, Any] | None,
    now: float,
) -> None:
    """Write an endpoint that is wanted; sqlite3.IntegrityError where its name is taken."""
    connection.execute(
        "INSERT INTO endpoints (name, arn, region, status, target, change, generation, variants, config_name,"
        " deployment, created, modified)"
        " SELECT ?, ?, ?, 'Creating', ?, ?, generation + 1, '[]', ?, ?, ?, ? FROM gone",
        (name, arn, region, _json(target), CREATE, target.config_name, _json(deployment), now, now),
    )


def insert_tags(connection: sqlite3.Connection, arn: str, tags: Mapping[str, str]) -> None:
    """Write tags of a resource over those of the same names."""
    connection.executemany(
        "INSERT OR REPLACE INTO tags (arn, name, value) VALUES (?, ?, ?)",
        [(arn, name, value) for name, value in tags.items()],
    )
