"""Whatever runs and whatever a file says: one update makes it so, and a second one has nothing to do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mmekit_toolkit.deploy.description import (
    Alarms,
    Autoscaling,
    Description,
    VariantDescription,
)
from mmekit_toolkit.deploy.plan import plan
from tests.deploy.account import Account
from tests.deploy.support import AROUND, IMAGE, ROLE

scalings = st.builds(
    Autoscaling,
    min=st.just(1),
    max=st.integers(3, 5),
    invocations_per_instance=st.sampled_from([100.0, 200.0]),
)
alarms = st.builds(
    Alarms,
    errors_5xx_percent=st.sampled_from([None, 1.0, 2.0]),
    cache_hit_percent=st.sampled_from([None, 80.0]),
)


def variants(name: str) -> st.SearchStrategy[VariantDescription]:
    return st.builds(
        VariantDescription,
        name=st.just(name),
        instance_type=st.sampled_from(["ml.m5.large", "ml.r5.large"]),
        instances=st.integers(1, 3),
        weight=st.sampled_from([1.0, 2.0]),
        environment=st.sampled_from([None, {"A": "1"}]),
        autoscaling=st.none() | scalings,
        alarms=st.none() | alarms,
    )


descriptions = st.builds(
    Description,
    name=st.just("churn"),
    image=st.just(IMAGE),
    role=st.just(ROLE),
    models=st.just("s3://models/churn/"),
    cache=st.booleans(),
    variants=st.sampled_from([["A"], ["A", "B"], ["B"]]).flatmap(
        lambda names: st.tuples(*map(variants, names)).map(list)
    ),
)


def bring(account: Account, description: Description, *, stop_after: int | None = None) -> int:
    """Take the steps of a plan, all or the first ones; return how many requests it has."""
    requests = plan(description, AROUND, account.observed()).requests
    for request in requests[:stop_after]:
        account.perform(request)
    return len(requests)


def as_described(account: Account, description: Description) -> None:
    made = plan(description, AROUND, account.observed())
    assert made.steps == []
    assert made.differences == []
    assert account.endpoint
    running = account.configs[account.endpoint["EndpointConfigName"]]["ProductionVariants"]
    counts = account.observed().endpoint.counts  # type: ignore[union-attr]  # it is there
    for variant, wanted in zip(running, description.variants, strict=True):
        model = account.models[variant["ModelName"]]
        assert variant["InstanceType"] == wanted.instance_type
        assert model["PrimaryContainer"]["Environment"] == (wanted.environment or {})
        assert (wanted.name in account.policies) == (wanted.autoscaling is not None)
        if wanted.autoscaling is None:
            assert counts[wanted.name] == wanted.instances


@settings(max_examples=50)
@given(first=descriptions, second=descriptions, third=descriptions, load=st.integers(1, 5))
def test_one_update_makes_it_so_and_the_next_does_nothing(
    first: Description, second: Description, third: Description, load: int
) -> None:
    account = Account()
    bring(account, first)
    as_described(account, first)
    for wanted in (second, third, first):
        for variant in ("A", "B"):
            account.autoscale(variant, load)
        before = account.observed().endpoint.counts if account.endpoint else {}  # type: ignore[union-attr]
        bring(account, wanted)
        as_described(account, wanted)
        for variant in wanted.variants:
            name = variant.name
            if name in before and variant.autoscaling and account.endpoint:
                count = account.observed().endpoint.counts[name]  # type: ignore[union-attr]
                assert count == min(before[name], variant.autoscaling.max), "what autoscaling chose stays"


@settings(max_examples=50)
@given(first=descriptions, second=descriptions, stops=st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_runs_that_were_cut_off_anywhere_are_finished_by_the_next(
    first: Description, second: Description, stops: list[int]
) -> None:
    account = Account()
    for stop in stops:
        bring(account, first, stop_after=stop)
    bring(account, first)
    as_described(account, first)
    models = len(account.models)
    for stop in stops:
        bring(account, second, stop_after=stop)
    bring(account, second)
    as_described(account, second)
    assert len(account.models) - models <= 2, "nothing is made twice"
