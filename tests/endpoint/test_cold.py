"""Cold models: one download and load for all who wait, 429 at the end of one's own time, the load goes on."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.endpoint.callers import Callers
from tests.endpoint.service import Service, stub_model
from tests.support.server import until


def _loads(journal: Path, target: str) -> int:
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    return sum(e["method"] == "POST" and e["path"] == "/models" and e["target"] == target for e in entries)


def test_all_who_wait_share_one_download_and_one_load(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Service(tmp_path / "state") as service, ThreadPoolExecutor(32) as threads:
        service.upload(cold=stub_model("c", load_s="0.5"))
        service.create("shared", environment={"STUB_JOURNAL": str(journal)})
        answers = list(threads.map(lambda _: service.invoke("shared", "cold.tar.gz"), range(32)))
        assert {answer["value"] for answer in answers} == {"c"}
        assert _loads(journal, "cold.tar.gz") == 1
        assert len(service.events("downloaded")) == 1


def test_a_model_that_is_not_ready_in_time_is_429_and_the_load_goes_on(tmp_path: Path) -> None:
    """AWS: "Invoke a Multi-Model Endpoint": 60 s a call, 360 s in all; shortened here."""
    loads = tmp_path / "loads"
    with Service(tmp_path / "state", "--invoke-timeout", "1") as service:
        service.upload(slow=stub_model("s", load_until=str(loads)))
        service.create("late")
        begun = time.monotonic()
        with pytest.raises(
            service.runtime.exceptions.ModelNotReadyException, match=r"loading.*try again"
        ) as caught:
            service.invoke("late", "slow.tar.gz")
        assert 1 <= time.monotonic() - begun < 30, "the default is 60 s"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        loads.touch()
        until(lambda: service.loaded("late") == [["slow.tar.gz"]], what="the load")
        assert service.invoke("late", "slow.tar.gz")["value"] == "s"
        assert len(service.events("loaded")) == 1


def test_a_load_that_outlasts_its_limit_fails_for_good(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--load-timeout", "3", "--failure-memory", "0.2") as service:
        service.upload(hangs=stub_model("h", load_status="hang"), fine=stub_model("f"))
        service.create("limit")
        with pytest.raises(service.runtime.exceptions.ModelError, match="still loading after 3 s"):
            service.invoke("limit", "hangs.tar.gz")
        assert service.invoke("limit", "fine.tar.gz")["value"] == "f"


def test_a_failed_load_is_told_to_all_and_remembered(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Service(tmp_path / "state", "--failure-memory", "60") as service, ThreadPoolExecutor(16) as threads:
        service.upload(broken=stub_model("b", load_status="500", load_s="0.2"))
        service.create("broken", environment={"STUB_JOURNAL": str(journal)})

        def call(_: int) -> str:
            with pytest.raises(service.runtime.exceptions.ModelError) as caught:
                service.invoke("broken", "broken.tar.gz")
            assert caught.value.response["OriginalStatusCode"] == 500
            return str(caught.value.response["OriginalMessage"])

        messages = set(threads.map(call, range(16)))
        assert len(messages) == 1
        assert "told to answer 500" in messages.pop()
        call(0)
        assert _loads(journal, "broken.tar.gz") == 1, "a failure is not hammered"


def test_a_failed_load_is_tried_again_later(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Service(tmp_path / "state", "--failure-memory", "0.2") as service:
        service.upload(broken=stub_model("b", load_status="500"))
        service.create("broken", environment={"STUB_JOURNAL": str(journal)})
        for number in (1, 2):
            with pytest.raises(service.runtime.exceptions.ModelError):
                service.invoke("broken", "broken.tar.gz")
            assert _loads(journal, "broken.tar.gz") == number
            time.sleep(0.3)


def test_a_missing_archive_is_found_a_second_after_it_was_uploaded(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.s3.create_bucket(Bucket="models")
        service.create("missing")
        with pytest.raises(
            ClientError, match=r"bucket: models, key: m/later.tar.gz.*no such object"
        ) as caught:
            service.invoke("missing", "later.tar.gz")
        assert caught.value.response["Error"]["Code"] == "ValidationError"
        service.upload(later=stub_model("now"))
        time.sleep(1.1)
        assert service.invoke("missing", "later.tar.gz")["value"] == "now"


def test_two_thousand_callers_of_a_cold_model_leave_warm_ones_alone(tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    with Service(tmp_path / "state") as service:
        service.upload(cold=stub_model("c", load_until=str(loads)), warm=stub_model("w"))
        service.create("crowd")
        service.invoke("crowd", "warm.tar.gz")
        alone = _latencies(service, "warm.tar.gz")
        with Callers(service.url, "crowd", "cold.tar.gz", 2000) as crowd:
            until(lambda: crowd.waiting(service) >= 2000, what="two thousand callers that wait")
            # The load does not end before these calls do: nobody waits for it who calls a warm model.
            crowded = _latencies(service, "warm.tar.gz")
            loads.touch()
            statuses = crowd.answers(timeout_s=60)
        assert statuses == {200: 2000}
        # What waits costs nothing: not a timing, but a tenfold latency would be another design.
        assert statistics.median(crowded) < 10 * statistics.median(alone) + 0.01


def _latencies(service: Service, target: str, number: int = 500) -> list[float]:
    url = urlsplit(service.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    found = []
    for _ in range(number):
        begun = time.monotonic()
        headers = {"X-Amzn-SageMaker-Target-Model": target, "Content-Type": "text/csv"}
        connection.request("POST", "/endpoints/crowd/invocations", b"1", headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        found.append(time.monotonic() - begun)
    connection.close()
    return found


def test_a_caller_that_leaves_ends_nothing_for_the_others(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service, ThreadPoolExecutor(4) as threads:
        service.upload(cold=stub_model("c", load_s="1"))
        service.create("leaving")
        url = urlsplit(service.url)
        leaving = http.client.HTTPConnection(url.hostname or "", url.port)
        headers = {"X-Amzn-SageMaker-Target-Model": "cold.tar.gz"}
        leaving.request("POST", "/endpoints/leaving/invocations", b"1", headers)
        staying = threads.submit(service.invoke, "leaving", "cold.tar.gz")
        threading.Event().wait(0.3)
        leaving.close()
        assert staying.result()["value"] == "c"
