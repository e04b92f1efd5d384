"""What is counted: per variant, per model, and since the last publication."""

from __future__ import annotations

import time

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.telemetry.series import NO_ANSWER, UNSENT
from mmekit_endpoint.telemetry.statistics import MAX_MODELS, OTHER, Statistics, VariantStatistics

#: A request: model, status, latency; None takes a window.
STEPS = st.lists(
    st.none() | st.tuples(st.sampled_from("abc"), st.sampled_from([0, 200, 404, 503]), st.floats(0.0, 1e6))
)


@given(STEPS)
def test_windows_lose_nothing_and_have_nothing_twice(steps: list[tuple[str, int, float] | None]) -> None:
    counted = VariantStatistics()
    windows = []
    requests = [step for step in steps if step is not None]
    for step in steps:
        if step is None:
            windows.append(counted.take_window())
        else:
            model, status, latency_us = step
            counted.invocation(model, status, latency_us, 10.0, True)
    windows.append(counted.take_window())
    total = counted.total()
    assert sum(window.invocations for window in windows) == total.invocations == len(requests)
    for place in range(UNSENT + 1):
        assert sum(window.answers[place] for window in windows) == total.answers[place]
    sent = sum(latency_us > 0 or status == 200 for _, status, latency_us in requests)
    assert sum(w.latency.count for w in windows) == total.latency.count == sent
    assert sum(w.overhead.count for w in windows) == total.overhead.count == len(requests)
    by_model = {name: series.invocations for name, series in counted.by_model()}
    assert by_model == {name: [r[0] for r in requests].count(name) for name in {r[0] for r in requests}}


def test_statuses_are_counted_by_who_gave_them() -> None:
    counted = VariantStatistics()
    for status in (200, 204, 400, 404, 500, 0):
        counted.invocation("a", status, 100.0, 1.0, True)
    # the service's own: the container never got it
    counted.invocation("a", 429, 0.0, 6e7, False)
    total = counted.total()
    assert total.answers[2] == total.answers[4] == 2
    assert total.answers[5] == total.answers[NO_ANSWER] == total.answers[UNSENT] == 1
    assert total.model_errors == 5
    assert total.latency.count == 6
    assert total.overhead.count == 7
    assert (total.hits, total.misses) == (6, 1)


def test_single_model_variants_have_no_hits_and_no_models() -> None:
    counted = VariantStatistics()
    counted.invocation(None, 200, 100.0, 1.0, None)
    counted.waited(None, 5.0)
    shown = counted.snapshot()
    assert shown.invocations == 1
    assert shown.hit_ratio is None
    assert shown.models == []


def test_models_beyond_the_bound_share_one_series() -> None:
    counted = VariantStatistics()
    for number in range(MAX_MODELS + 5):
        counted.invocation(f"m{number}", 200, 100.0, 1.0, True)
        counted.loaded(f"m{number}", 1000.0)
    by_model = dict(counted.by_model())
    assert len(by_model) == MAX_MODELS + 1
    assert by_model[OTHER].invocations == 5
    assert by_model[OTHER].loading.count == 5
    assert counted.total().invocations == MAX_MODELS + 5


def test_a_model_of_the_shared_name_is_counted_there() -> None:
    counted = VariantStatistics()
    counted.invocation(OTHER, 200, 100.0, 1.0, True)
    assert [(name, series.invocations) for name, series in counted.by_model()] == [(OTHER, 1)]


def test_a_snapshot_says_what_the_tables_show() -> None:
    statistics = Statistics()
    counted = statistics.variant("e", "v")
    assert statistics.variant("e", "v") is counted
    for hit in (True, True, True, False):
        counted.invocation("a", 200, 20_000.0, 1_000.0, hit)
    counted.invocation("a", 503, 20_000.0, 1_000.0, True)
    counted.downloaded("a", 3e6, 100)
    counted.loaded("a", 2e6)
    counted.waited("a", 5e6)
    counted.load_failed("a")
    counted.unloaded("a", 1e6)
    counted.evicted("a", "memory")
    counted.evicted("a", "disk")
    shown = msgspec.to_builtins(statistics.snapshots())["e/v"]
    assert (shown["invocations"], shown["errors_4xx"], shown["errors_5xx"]) == (5, 0, 1)
    assert shown["hit_ratio"] == 0.8
    assert shown["latency_ms"] == {
        "count": 5,
        "mean": 20.0,
        "p50": 20.0,
        "p90": 20.0,
        "p95": 20.0,
        "p99": 20.0,
        "max": 20.0,
    }
    assert (shown["loads"], shown["load_failures"], shown["evictions"]) == (1, 1, 1)
    assert (shown["downloads"], shown["downloaded_bytes"], shown["evictions_from_disk"]) == (1, 100, 1)
    assert (shown["wait_ms"]["p50"], shown["download_ms"]["p50"], shown["load_ms"]["p50"]) == (5e3, 3e3, 2e3)
    (model,) = shown["models"]
    assert (model["target_model"], model["invocations"], model["errors"]) == ("a", 5, 1)


def test_what_a_deleted_endpoint_did_last_is_kept_for_publication_once() -> None:
    statistics = Statistics()
    statistics.variant("gone", "v").invocation("a", 200, 1.0, 1.0, True)
    statistics.variant("gone", "idle")
    statistics.variant("stays", "v").invocation("a", 200, 1.0, 1.0, True)
    statistics.forget("gone")
    ((endpoint, variant, window),) = statistics.take_forgotten()
    assert (endpoint, variant, window.invocations) == ("gone", "v", 1)
    assert statistics.take_forgotten() == []
    assert list(statistics.snapshots()) == ["stays/v"]
    assert statistics.variant("gone", "v").total().invocations == 0


def test_counting_a_request_takes_microseconds() -> None:
    counted = VariantStatistics()
    best_us = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        for number in range(1000):
            counted.invocation("model.tar.gz", 200, 1000.0 + number, 100.0 + number, True)
        best_us = min(best_us, (time.perf_counter() - begun) * 1e6 / 1000)
    # 1.4 on the machine where it was written; others share theirs
    assert best_us < 8
