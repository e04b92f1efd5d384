"""Memory and disk of an instance: who leaves, in which order, and who never does."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.endpoint.service import Service, stub_model
from tests.support.server import until

CAPACITY = 3


def _journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _moves(path: Path) -> list[tuple[str, str]]:
    """(loaded or unloaded, target) as the container saw them, refused loads left out."""
    moves = []
    for entry in _journal(path):
        if entry["method"] == "POST" and entry["path"] == "/models":
            moves.append(("load", entry["target"]))
        elif entry["method"] == "DELETE":
            moves.append(("unload", entry["target"]))
    # A load that was answered with 507 is followed by an unload and the same load.
    kept: list[tuple[str, str]] = []
    for number, move in enumerate(moves):
        refused = (
            move[0] == "load"
            and number + 1 < len(moves)
            and moves[number + 1][0] == "unload"
            and move in moves[number + 2 : number + 3]
        )
        if not refused:
            kept.append(move)
    return kept


def _reference(calls: list[str], capacity: int) -> list[tuple[str, str]]:
    """What a least-recently-used cache does with the same calls."""
    memory: OrderedDict[str, None] = OrderedDict()
    moves = []
    for target in calls:
        if target in memory:
            memory.move_to_end(target)
            continue
        if len(memory) == capacity:
            moves.append(("unload", memory.popitem(last=False)[0]))
        moves.append(("load", target))
        memory[target] = None
    return moves


def test_five_models_in_a_memory_for_three_leave_as_in_a_reference_lru(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    random_calls = random.Random(7)
    names = [f"m{number}.tar.gz" for number in range(5)]
    calls = [random_calls.choice(names) for _ in range(80)]
    with Service(tmp_path / "state") as service:
        service.upload(**{f"m{number}": stub_model(str(number)) for number in range(5)})
        environment = {"STUB_CAPACITY": str(CAPACITY), "STUB_JOURNAL": str(journal)}
        service.create("lru", environment=environment)
        for target in calls:
            assert service.invoke("lru", target)["target"] == target
        assert _moves(journal) == _reference(calls, CAPACITY)
        ((memory),) = service.loaded("lru")
        assert len(memory) == CAPACITY
        downloads = service.events("downloaded")
        assert len(downloads) == len(names), "what left the memory stays on disk"


def test_a_model_with_calls_in_flight_is_never_unloaded(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    with Service(tmp_path / "state") as service, ThreadPoolExecutor(8) as threads:
        service.upload(slow=stub_model("s", invoke_until=str(ends)), a=stub_model("a"), b=stub_model("b"))
        service.create("busy", environment={"STUB_CAPACITY": "2"})
        slow = threads.submit(service.invoke, "busy", "slow.tar.gz")
        until(lambda: service.loaded("busy") == [["slow.tar.gz"]], what="the slow model")
        for target in ("a.tar.gz", "b.tar.gz", "a.tar.gz"):
            service.invoke("busy", target)
        ends.touch()
        assert slow.result()["value"] == "s"
        unloaded = [event["model"] for event in service.events("unloaded")]
        assert "slow.tar.gz" not in unloaded
        assert unloaded == ["a.tar.gz", "b.tar.gz"]


def test_a_load_waits_until_a_model_in_use_is_idle(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service, ThreadPoolExecutor(8) as threads:
        service.upload(slow=stub_model("s", invoke_s="1"), a=stub_model("a"))
        service.create("full", environment={"STUB_CAPACITY": "1"})
        slow = threads.submit(service.invoke, "full", "slow.tar.gz")
        until(lambda: service.loaded("full") == [["slow.tar.gz"]], what="the slow model")
        assert service.invoke("full", "a.tar.gz")["value"] == "a"
        assert slow.result()["value"] == "s"


def test_507_with_nothing_to_unload_becomes_a_model_error(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a", load_status="507"), b=stub_model("b"))
        service.create("never")
        service.invoke("never", "b.tar.gz")
        with pytest.raises(service.runtime.exceptions.ModelError) as caught:
            service.invoke("never", "a.tar.gz")
        assert caught.value.response["OriginalStatusCode"] == 507
        assert [event["model"] for event in service.events("unloaded")] == ["b.tar.gz"]
        assert service.invoke("never", "b.tar.gz")["value"] == "b"


def test_507_from_an_invocation_unloads_others_until_it_succeeds(tmp_path: Path) -> None:
    """As GPU containers answer (AWS: mms-container-apis)."""
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"), b=stub_model("b"), c=stub_model("c"))
        service.create("gpu", environment={"STUB_INVOKE_507": "2"})
        service.invoke("gpu", "a.tar.gz")
        assert service.invoke("gpu", "b.tar.gz")["value"] == "b"
        assert [event["model"] for event in service.events("unloaded")] == ["a.tar.gz"]
        service.invoke("gpu", "a.tar.gz")
        assert [event["model"] for event in service.events("unloaded")] == ["a.tar.gz", "b.tar.gz"]


def test_a_full_volume_deletes_the_least_recently_used_that_is_not_loaded(tmp_path: Path) -> None:
    block = "x" * 400_000
    with Service(tmp_path / "state", "--volume", "1M") as service:
        service.upload(**{name: stub_model(name, block=block) for name in "abcd"})
        service.create("disk", environment={"STUB_CAPACITY": "1"})
        for name in "ab":
            service.invoke("disk", f"{name}.tar.gz")
        service.invoke("disk", "a.tar.gz")  # b is on disk alone, and less recently used than a
        service.invoke("disk", "c.tar.gz")
        assert [event["model"] for event in service.events("deleted")] == ["b.tar.gz"]
        (instance,) = service.instances("disk")
        assert instance["disk_bytes"] <= instance["volume_bytes"] == 1024 * 1024
        assert service.invoke("disk", "b.tar.gz")["value"] == "b"
        names = {path.name for path in (tmp_path / "state/instances").glob("*/models/*")}
        assert len(names) == 2, "what is deleted is off the disk"


def test_an_archive_larger_than_the_volume_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--volume", "1M") as service:
        service.upload(huge=stub_model("h", block="x" * 3_000_000), small=stub_model("s"))
        service.create("volume")
        with pytest.raises(ClientError, match=r"more than 1048576 bytes.*VolumeSizeInGB") as caught:
            service.invoke("volume", "huge.tar.gz")
        assert caught.value.response["Error"]["Code"] == "ValidationError"
        assert service.invoke("volume", "small.tar.gz")["value"] == "s"


def test_without_a_cache_a_model_leaves_memory_and_disk_after_each_call(tmp_path: Path) -> None:
    """AWS: "Set MME model caching behavior"."""
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("uncached", cache="Disabled")
        for _ in range(2):
            assert service.invoke("uncached", "a.tar.gz")["value"] == "a"
            until(lambda: service.instances("uncached")[0]["models"] == [], what="an empty instance")
        assert len(service.events("downloaded")) == 2
        assert not list((tmp_path / "state/instances").glob("*/models/*"))


def test_an_overwritten_object_is_not_loaded_again_and_a_new_name_is(tmp_path: Path) -> None:
    """AWS: "Add or Remove Models"; deleted objects serve on while they are cached (ours)."""
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("first"))
        service.create("replace")
        assert service.invoke("replace", "a.tar.gz")["value"] == "first"
        service.upload(a=stub_model("second"), a_v2=stub_model("second"))
        assert service.invoke("replace", "a.tar.gz")["value"] == "first"
        assert service.invoke("replace", "a_v2.tar.gz")["value"] == "second"
        service.s3.delete_object(Bucket="models", Key="m/a.tar.gz")
        assert service.invoke("replace", "a.tar.gz")["value"] == "first"
