"""Which model leaves first: the least recently used that nobody uses."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.residents import may_free_memory, phantom, victim_in_memory, victim_on_disk

POSSIBLE = {
    State.ABSENT: {State.DOWNLOADING},
    State.DOWNLOADING: {State.ON_DISK, State.ABSENT},
    State.ON_DISK: {State.LOADING, State.UNLOADING, State.DELETING},
    State.LOADING: {State.LOADED, State.ON_DISK},
    State.LOADED: {State.UNLOADING, State.ON_DISK},
    State.UNLOADING: {State.ON_DISK},
    State.DELETING: {State.ABSENT},
}


@st.composite
def _models(draw: st.DrawFn) -> list[Model]:
    models = []
    uses = draw(st.permutations(range(8)))
    for number in range(draw(st.integers(0, 8))):
        model = Model(f"m{number}", f"n{number}")
        model.state = draw(st.sampled_from(State))
        model.in_flight = draw(st.integers(0, 1))
        model.last_used = uses[number]
        if draw(st.booleans()):
            model.waiting.append(cast(Call, object()))
        if draw(st.booleans()):
            model.task = cast("asyncio.Task[None]", object())
        model.maybe_loaded = draw(st.booleans())
        models.append(model)
    return models


def _at_rest(model: Model) -> bool:
    return not model.in_flight and not model.waiting and model.task is None


@given(_models())
def test_memory_gives_up_the_least_recently_used_that_is_loaded_and_idle(models: list[Model]) -> None:
    idle = [m for m in models if m.state is State.LOADED and _at_rest(m)]
    victim = victim_in_memory(models)
    assert victim is (min(idle, key=lambda m: m.last_used) if idle else None)


@given(_models())
def test_the_model_that_needs_the_room_is_never_the_victim(models: list[Model]) -> None:
    for keep in models:
        assert victim_in_memory(models, keep) is not keep
        assert victim_on_disk(models, keep) is not keep


@given(_models())
def test_the_volume_gives_up_what_is_not_loaded_before_what_is(models: list[Model]) -> None:
    idle = [m for m in models if _at_rest(m)]
    on_disk = [m for m in idle if m.state is State.ON_DISK]
    loaded = [m for m in idle if m.state is State.LOADED]
    victim = victim_on_disk(models)
    pool = on_disk or loaded
    assert victim is (min(pool, key=lambda m: m.last_used) if pool else None)


@given(_models(), st.data())
def test_a_model_that_may_be_loaded_is_tried_once(models: list[Model], data: st.DataObject) -> None:
    tried = {model for model in models if data.draw(st.booleans())}
    found = phantom(models, tried)
    possible = [
        m for m in models if m.maybe_loaded and m.state is State.ON_DISK and _at_rest(m) and m not in tried
    ]
    assert found is (min(possible, key=lambda m: m.last_used) if possible else None)


@given(_models(), st.data())
def test_waiting_makes_sense_while_another_may_leave_memory(models: list[Model], data: st.DataObject) -> None:
    refused = {model for model in models if data.draw(st.booleans())}
    held = [
        m
        for m in models
        if m.state in (State.LOADED, State.UNLOADING) or (m.state is State.LOADING and m not in refused)
    ]
    assert may_free_memory(models, None, refused) is bool(held)
    for keep in models:
        assert may_free_memory(models, keep, refused) is any(m is not keep for m in held)


@given(st.lists(st.sampled_from(State), min_size=1, max_size=8))
def test_a_model_changes_its_state_only_as_it_can_be_meant(states: list[State]) -> None:
    model = Model("m", "n")
    for state in states:
        before = model.state
        if state in POSSIBLE[before]:
            model.to(state)
            assert model.state is state
        else:
            with pytest.raises(RuntimeError, match=f"from '{before.value}' to '{state.value}'"):
                model.to(state)
            assert model.state is before
