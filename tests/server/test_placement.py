"""Which worker a model gets and how many copies it has: decisions over plain values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.server.placement import (
    COPY_AFTER_S,
    DROP_AFTER_S,
    POOL_GROWTH,
    SLOW_LOAD_MS,
    Candidate,
    Demand,
    Kind,
    Needs,
    Rule,
    copies_wanted,
    pick_shared,
)

SMALL = Needs(own_code=False, size_bytes=1000)
LARGE = Needs(own_code=False, size_bytes=5000)
OWN = Needs(own_code=True, size_bytes=1000)
AUTO = Rule("auto", large_model_bytes=5000)


# --- the sharing rule --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "needs", "kind"),
    [
        (AUTO, SMALL, Kind.SHARED),
        (AUTO, LARGE, Kind.OWN),
        (AUTO, Needs(False, 4999), Kind.SHARED),
        (AUTO, OWN, Kind.OWN),
        (Rule("never", 5000), SMALL, Kind.OWN),
        (Rule("always", 5000), OWN, Kind.SHARED),
        (Rule("always", 5000), LARGE, Kind.SHARED),
        (Rule("auto", 0), SMALL, Kind.OWN),
    ],
)
def test_small_models_without_code_share_unless_the_setting_says_otherwise(
    rule: Rule, needs: Needs, kind: Kind
) -> None:
    assert rule.kind_for(needs) is kind


@pytest.mark.parametrize("sharing", ["auto", "always", "never"])
def test_a_device_is_shared_by_all_that_use_it_own_code_included(sharing: str) -> None:
    rule = Rule(sharing, 5000, gpus=1)
    for own_code in (False, True):
        assert rule.kind_for(Needs(own_code, 10_000, uses_device=True)) is Kind.DEVICE


def test_without_a_gpu_what_would_use_one_follows_the_common_rule() -> None:
    assert AUTO.kind_for(Needs(False, 1000, uses_device=True)) is Kind.SHARED


def test_with_a_gpu_what_does_not_use_it_follows_the_common_rule() -> None:
    assert Rule("auto", 5000, gpus=2).kind_for(SMALL) is Kind.SHARED


# --- choosing a shared worker ------------------------------------------------------------------


def _pick(
    candidates: list[Candidate], target: int = 2, load_ms: float = 1.0, pool: int | None = None
) -> int | None:
    return pick_shared(candidates, len(candidates) if pool is None else pool, target, load_ms)


def test_the_pool_is_filled_to_its_target_first() -> None:
    assert _pick([]) is None
    assert _pick([Candidate(1, 0, 0, False)]) is None
    assert _pick([Candidate(1, 5, 0, False), Candidate(2, 9, 0, False)]) == 1


def test_a_quick_load_goes_to_the_shortest_queue_and_then_to_the_fewest_models() -> None:
    assert _pick([Candidate(1, 1, 3, True), Candidate(2, 50, 0, True)]) == 2
    assert _pick([Candidate(1, 7, 1, True), Candidate(2, 3, 1, True)]) == 2
    assert _pick([Candidate(2, 3, 1, False), Candidate(1, 3, 1, False)]) == 1


def test_a_slow_load_never_goes_to_a_worker_with_busy_residents_while_another_can_be_had() -> None:
    busy = [Candidate(1, 2, 1, True), Candidate(2, 2, 1, True)]
    assert _pick(busy, load_ms=SLOW_LOAD_MS) in (1, 2), "not slow yet"
    assert _pick(busy, load_ms=SLOW_LOAD_MS + 1) is None
    assert _pick([*busy, Candidate(3, 40, 2, False)], load_ms=500) == 3


def test_the_pool_does_not_grow_without_bound() -> None:
    busy = [Candidate(number, 2, number, True) for number in range(1, 2 * POOL_GROWTH + 1)]
    assert _pick(busy[:-1], load_ms=500) is None
    assert _pick(busy, load_ms=500) == 1


def test_a_second_copy_needs_a_worker_that_does_not_hold_the_model() -> None:
    """The candidates are those that do not hold it; the pool is all."""
    assert _pick([], target=1, pool=1) is None
    assert _pick([Candidate(2, 0, 0, False)], target=2, pool=2) == 2


candidates = st.lists(
    st.builds(Candidate, st.integers(1, 99), st.integers(0, 9), st.integers(0, 9), st.booleans()),
    max_size=12,
    unique_by=lambda candidate: candidate.number,
)


@given(candidates, st.integers(1, 4), st.floats(0, 2000))
def test_the_choice_is_one_of_the_candidates_or_a_new_worker(
    pool: list[Candidate], target: int, load_ms: float
) -> None:
    number = _pick(pool, target, load_ms)
    if number is None:
        assert len(pool) < target * POOL_GROWTH
        return
    chosen = next(candidate for candidate in pool if candidate.number == number)
    assert len(pool) >= target
    if load_ms > SLOW_LOAD_MS and chosen.busy:
        assert all(candidate.busy for candidate in pool)


# --- copies ------------------------------------------------------------------------------------


def _demand(copies: int = 1, least: int = 1, backlog_s: float = 0.0, unneeded_s: float = 0.0) -> Demand:
    return Demand(copies, least, backlog_s, unneeded_s)


@pytest.mark.parametrize(
    ("demand", "most", "idle_cpus", "wanted", "why"),
    [
        (_demand(), 4, 2.0, 1, "nothing waits"),
        (_demand(backlog_s=COPY_AFTER_S), 4, 2.0, 2, "its queue stayed non-empty"),
        (_demand(backlog_s=COPY_AFTER_S / 2), 4, 2.0, 1, "not for long enough"),
        (_demand(copies=4, backlog_s=9), 4, 2.0, 4, "the setting's bound"),
        (_demand(backlog_s=9), 4, 0.2, 1, "the CPUs are busy: a copy would not help"),
        (_demand(backlog_s=9), 1, 2.0, 1, "MMEKIT_MAX_COPIES=1 never adds one"),
        (_demand(copies=1, least=3), 4, 0.0, 2, "asked for at the load; a copy was lost"),
        (_demand(copies=2, unneeded_s=DROP_AFTER_S), 4, 2.0, 1, "not needed for a minute"),
        (_demand(copies=2, unneeded_s=DROP_AFTER_S / 2), 4, 2.0, 2, "it may be needed again"),
        (_demand(copies=2, least=2, unneeded_s=9999), 4, 2.0, 2, "asked for at the load"),
        (_demand(copies=2, backlog_s=COPY_AFTER_S, unneeded_s=0), 4, 1.0, 3, "one is not enough"),
    ],
)
def test_a_copy_comes_with_a_lasting_backlog_and_goes_when_unneeded(
    demand: Demand, most: int, idle_cpus: float, wanted: int, why: str
) -> None:
    assert copies_wanted(demand, most, idle_cpus) == wanted, why


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 100),
    st.floats(0, 100),
    st.integers(1, 6),
    st.floats(0, 8),
)
def test_copies_change_by_one_and_stay_within_their_bounds(
    copies: int, least: int, backlog_s: float, unneeded_s: float, most: int, idle_cpus: float
) -> None:
    most = max(most, least)
    wanted = copies_wanted(Demand(copies, least, backlog_s, unneeded_s), most, idle_cpus)
    assert abs(wanted - copies) <= 1
    if wanted > copies:
        assert wanted <= most
    if wanted < copies:
        assert wanted >= least
