"""Where a model goes first: stable, even, and never beyond the bound."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.fleet.router import place, rank

_instances = st.lists(
    st.text("abcdef0123456789", min_size=3, max_size=8), min_size=1, max_size=8, unique=True
)


@given(_instances, st.text(min_size=1))
def test_the_order_does_not_depend_on_how_instances_are_listed(instances: list[str], target: str) -> None:
    assert rank(target, instances) == rank(target, list(reversed(instances)))
    assert sorted(rank(target, instances)) == sorted(instances)


@given(_instances, st.text(min_size=1))
def test_an_instance_that_goes_moves_only_its_own_models(instances: list[str], target: str) -> None:
    first = rank(target, instances)[0]
    for gone in instances:
        rest = [instance for instance in instances if instance != gone]
        if rest and gone != first:
            assert rank(target, rest)[0] == first


@given(st.integers(1, 8), st.integers(1, 200))
def test_no_instance_gets_more_than_the_bound(instances: int, models: int) -> None:
    counts = {f"i-{number}": 0 for number in range(instances)}
    for number in range(models):
        counts[place(f"model-{number}.tar.gz", counts)] += 1
    assert max(counts.values()) <= math.ceil(1.25 * models / instances)


@given(_instances, st.data())
def test_a_model_is_placed_on_an_instance_that_is_there(instances: list[str], data: st.DataObject) -> None:
    counts = {instance: data.draw(st.integers(0, 50)) for instance in instances}
    assert place(data.draw(st.text(min_size=1)), counts) in counts
