"""The database by itself: what the two processes may rely on."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mmekit_endpoint.api.control.definitions import Definitions
from mmekit_endpoint.database import (
    ENDPOINT,
    ENDPOINT_CONFIG,
    FILE_NAME,
    MODEL,
    SCHEMA_VERSION,
    Database,
    StateUnusable,
    resource_arn,
)
from mmekit_endpoint.definitions import (
    DELETE,
    SCALE,
    START,
    UPDATE,
    AsyncSpec,
    ContainerSpec,
    EndpointRow,
    EndpointSpec,
    VariantSpec,
    VariantState,
)
from mmekit_endpoint.folder_endpoint import put_endpoint

CONTAINER = ContainerSpec("image", True, "file:///models/", {"A": "1"}, cache_models=False)
SPEC = EndpointSpec("config", (VariantSpec("v", "model", CONTAINER, "ml.m5.large", 2, 0.5, 3, 60, 70),))
OTHER = msgspec.structs.replace(SPEC, config_name="other", asynchronous=AsyncSpec("s3://b/o"))
STATES = (VariantState("v", 0.5, 0.5, 2, 2, "image", "image@sha256:1"),)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / FILE_NAME)
    yield opened
    opened.close()


def create(database: Database, name: str = "e") -> EndpointRow:
    assert database.create_endpoint(name, resource_arn("eu-west-1", ENDPOINT, name), "eu-west-1", SPEC)
    return row(database, name)


def row(database: Database, name: str = "e") -> EndpointRow:
    found = database.endpoint(name)
    assert found is not None
    return found


def serve(database: Database, name: str = "e") -> EndpointRow:
    created = create(database, name)
    assert database.settle(
        name,
        created.generation,
        status="InService",
        failure_reason=None,
        spec=created.target,
        variants=STATES,
    )
    return row(database, name)


def change(database: Database, name: str, status: str, kind: str) -> EndpointRow:
    before = serve(database, name)
    target = None if kind == DELETE else OTHER
    assert database.change_endpoint(name, before.generation, status=status, change=kind, target=target)
    return row(database, name)


def test_a_row_comes_back_as_it_was_written(database: Database) -> None:
    created = create(database)
    assert created == EndpointRow(
        name="e",
        arn="arn:aws:sagemaker:eu-west-1:123456789012:endpoint/e",
        region="eu-west-1",
        status="Creating",
        failure_reason=None,
        spec=None,
        target=SPEC,
        change="create",
        generation=1,
        variants=(),
        created=created.created,
        modified=created.created,
    )
    assert database.endpoints() == [created]
    assert database.endpoint("E") is None


def test_a_name_is_taken_whatever_its_case(database: Database) -> None:
    create(database, "Name")
    assert not database.create_endpoint("nAME", "arn:other", "eu-west-1", SPEC)
    assert database.find_endpoint_arn("NAME") == row(database, "Name").arn


def test_settling_ends_a_change(database: Database) -> None:
    settled = serve(database)
    assert (settled.status, settled.change, settled.target) == ("InService", None, None)
    assert (settled.spec, settled.variants) == (SPEC, STATES)


def test_a_late_reconciler_changes_nothing(database: Database) -> None:
    late = serve(database).generation
    assert database.change_endpoint("e", late, status="Updating", change=UPDATE, target=OTHER)
    before = row(database)
    assert not database.progress("e", late, status="Failed")
    assert not database.settle("e", late, status="Failed", failure_reason="x", spec=None, variants=())
    assert not database.forget("e", late)
    assert row(database) == before


def test_an_endpoint_of_the_same_name_goes_on_counting_generations(database: Database) -> None:
    deleted = change(database, "e", "Deleting", DELETE)
    assert database.forget("e", deleted.generation)
    assert create(database).generation > deleted.generation


def test_a_change_starts_only_when_none_is_under_way(database: Database) -> None:
    created = create(database)
    assert not database.change_endpoint(
        "e", created.generation, status="Deleting", change=DELETE, target=None
    )


def test_progress_is_a_modification_only_with_another_status(database: Database) -> None:
    created = create(database)
    assert database.progress("e", created.generation, status="Creating", variants=STATES)
    assert row(database) == msgspec.structs.replace(created, variants=STATES)
    assert database.progress("e", created.generation, status="RollingBack")
    assert row(database).modified > created.modified
    assert row(database).variants == STATES


def test_forgetting_takes_the_tags_along(database: Database) -> None:
    definitions = Definitions(database)
    arn = resource_arn("eu-west-1", ENDPOINT, "e")
    assert database.create_endpoint("e", arn, "eu-west-1", SPEC, tags={"a": "1"})
    assert definitions.tags(arn) == {"a": "1"}
    assert database.forget("e", row(database).generation)
    assert definitions.tags(arn) == {}
    assert database.endpoint("e") is None


@pytest.mark.parametrize("status", ["InService", "OutOfService"])
def test_resuming_starts_what_served(database: Database, status: str) -> None:
    before = serve(database)
    assert database.progress("e", before.generation, status=status)
    database.resume()
    after = row(database)
    assert (after.status, after.change, after.target) == ("SystemUpdating", START, SPEC)
    assert after.generation == before.generation + 1
    assert [state.current_count for state in after.variants] == [0]
    database.resume()
    assert row(database) == after, "killed while it started"


@pytest.mark.parametrize(
    ("status", "kind"), [("Updating", UPDATE), ("Updating", SCALE), ("Deleting", DELETE)]
)
def test_resuming_keeps_changes_that_were_under_way(database: Database, status: str, kind: str) -> None:
    before = change(database, "e", status, kind)
    database.resume()
    after = row(database)
    assert (after.status, after.change, after.target) == (before.status, kind, before.target)


def test_resuming_keeps_creations_and_failures(database: Database) -> None:
    created = create(database, "creating")
    failed = create(database, "failed")
    database.settle("failed", failed.generation, status="Failed", failure_reason="no", spec=SPEC, variants=())
    failed = row(database, "failed")
    database.resume()
    assert row(database, "creating") == created
    assert row(database, "failed") == failed


def test_resuming_starts_what_served_before_an_update_that_was_rolled_back(database: Database) -> None:
    updating = change(database, "e", "Updating", UPDATE)
    assert database.progress("e", updating.generation, status="RollingBack")
    database.resume()
    after = row(database)
    assert (after.status, after.change, after.target) == ("SystemUpdating", START, SPEC)


def test_a_local_endpoint_brings_its_definitions(database: Database) -> None:
    put_endpoint(database, "local", SPEC, "us-east-1")
    definitions = Definitions(database)
    model = definitions.get(MODEL, "model")
    config = definitions.get(ENDPOINT_CONFIG, "config")
    assert model is not None
    assert config is not None
    assert model.body["PrimaryContainer"] == {
        "Image": "image",
        "Mode": "MultiModel",
        "ModelDataUrl": "file:///models/",
        "Environment": {"A": "1"},
        "MultiModelConfig": {"ModelCacheSetting": "Disabled"},
    }
    assert config.body["ProductionVariants"][0]["InitialInstanceCount"] == 2
    assert (row(database, "local").status, row(database, "local").target) == ("Creating", SPEC)


def test_a_local_endpoint_replaces_the_one_of_its_name(database: Database) -> None:
    before = serve(database, "Local")
    put_endpoint(database, "local", OTHER, "us-east-1")
    put_endpoint(database, "local", SPEC, "us-east-1")
    assert [found.name for found in database.endpoints()] == ["local"]
    assert row(database, "local").generation > before.generation


def test_the_version_changes_with_writes_of_any_connection(database: Database, tmp_path: Path) -> None:
    version = database.data_version()
    assert database.data_version() == version
    create(database)
    assert database.data_version() != version
    version = database.data_version()
    script = (
        "import sys; from pathlib import Path; from mmekit_endpoint.database import Database\n"
        "d = Database(Path(sys.argv[1])); d.progress('e', 1, status='Failed'); d.close()"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / FILE_NAME)], check=True)
    assert database.data_version() != version
    assert row(database).status == "Failed"


def test_threads_write_at_the_same_time(database: Database) -> None:
    def work(number: int) -> None:
        for index in range(20):
            name = f"e{number}-{index}"
            assert database.create_endpoint(name, f"arn:{name}", "eu-west-1", SPEC)
            assert database.progress(name, row(database, name).generation, status="Failed")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(database.endpoints()) == 160
    assert {found.status for found in database.endpoints()} == {"Failed"}


def test_processes_open_a_new_file_at_the_same_time(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mmekit_endpoint.database import Database\n"
        "print(flush=True)\n"
        "for line in sys.stdin: Database(Path(line.strip())).close(); print(flush=True)"
    )
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    ins, outs = [p.stdin for p in processes], [p.stdout for p in processes]

    def all_are_ready() -> None:
        assert [out.readline() for out in outs if out] == [b"\n"] * 4

    all_are_ready()
    for number in range(25):
        for stdin in ins:
            assert stdin is not None
            stdin.write(f"{tmp_path / str(number)}.sqlite\n".encode())
            stdin.flush()
        all_are_ready()
    for process in processes:
        process.communicate(timeout=30)
    assert [process.returncode for process in processes] == [0, 0, 0, 0]


def test_a_file_of_a_later_mmekit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StateUnusable, match="was written by a later mmekit"):
        Database(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateUnusable, match="file is not a database"):
        Database(path)
