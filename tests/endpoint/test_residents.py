"""Which model leaves first: the least recently used that nobody uses."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.residents import may_free_memory, victim_in_memory, victim_on_disk


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
        models.append(model)
    return models


@given(_models())
def test_memory_gives_up_the_least_recently_used_that_is_loaded_and_idle(models: list[Model]) -> None:
    idle = [m for m in models if m.state is State.LOADED and not m.in_flight and not m.waiting]
    victim = victim_in_memory(models)
    assert victim is (min(idle, key=lambda m: m.last_used) if idle else None)


@given(_models())
def test_the_model_that_needs_the_room_is_never_the_victim(models: list[Model]) -> None:
    for keep in models:
        assert victim_in_memory(models, keep) is not keep
        assert victim_on_disk(models, keep) is not keep


@given(_models())
def test_the_volume_gives_up_what_is_not_loaded_before_what_is(models: list[Model]) -> None:
    idle = [m for m in models if not m.in_flight and not m.waiting]
    on_disk = [m for m in idle if m.state is State.ON_DISK]
    loaded = [m for m in idle if m.state is State.LOADED]
    victim = victim_on_disk(models)
    pool = on_disk or loaded
    assert victim is (min(pool, key=lambda m: m.last_used) if pool else None)


@given(_models())
def test_waiting_makes_sense_while_something_is_in_memory(models: list[Model]) -> None:
    held = [m for m in models if m.state in (State.LOADED, State.UNLOADING)]
    assert may_free_memory(models) is bool(held)
    for keep in models:
        assert may_free_memory(models, keep) is any(m is not keep for m in held)
