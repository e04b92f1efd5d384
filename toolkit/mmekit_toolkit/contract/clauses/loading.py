"""``POST /models``: success, a taken name, a failure that leaves nothing, several loads at once."""

from __future__ import annotations

import dataclasses
import secrets
from functools import partial

from mmekit_toolkit.contract.bench import Bench
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.premises import expect_not_loaded, failed_load, premise
from mmekit_toolkit.contract.verdict import Broken

#: Loads at the same time.
_AT_ONCE = 6

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"


@clause(Section.LOAD, sources.APIS)
def load(bench: Bench) -> None:
    """A load is answered with 200, and the model answers from then on."""
    model = bench.model()
    bench.load(model).expect_status(200)
    at_once = bench.invoke(model)
    if fault := bench.sample.fault(at_once, model.identity):
        with premise():
            bench.expect_comes_to_serve(model, "at all")
        at_once.expect(False, f"{fault} at once: the load was answered with 200")


@clause(Section.LOAD, sources.APIS)
def load_conflict(bench: Bench) -> None:
    """A load of a name that is loaded is 409, and the model goes on serving."""
    model, other = bench.loaded(), bench.model()
    bench.load(model).expect_status(409, "for a name that is loaded already")
    bench.expect_serves(model, "after the second load, which was refused")
    from_elsewhere = dataclasses.replace(model, url=other.url)
    bench.load(from_elsewhere).expect_status(409, "for a name that is loaded already, from another folder")
    bench.expect_serves(model, "after a second load from another folder, which was refused")


@clause(Section.LOAD, sources.APIS)
def load_failure_answered(bench: Bench) -> None:
    """A model that cannot be loaded is answered with an error that is neither 409 nor 507."""
    answer = bench.load(bench.broken_model())
    answer.expect(
        answer.status >= 400 and answer.status not in (409, 507),
        "an error, neither 409 (taken) nor 507 (no room, so that others are unloaded for it): "
        f"this is {bench.sample.broken_means}",
    )


@clause(Section.LOAD, sources.APIS)
def load_failure_unlisted(bench: Bench) -> None:
    """A model whose load failed is not loaded: it is not listed, and GET is 404."""
    other = bench.loaded()
    model = failed_load(bench)
    expect_not_loaded(bench, model, other, "the load of this model has failed")


@clause(Section.LOAD, sources.APIS)
def load_failure_retryable(bench: Bench) -> None:
    """After a load that failed the same name can be loaded, once its files are right."""
    model = failed_load(bench)
    bench.mend(model)
    again = bench.load(model)
    again.expect(again.ok, "200, now that the files of the model are right")
    bench.expect_comes_to_serve(model, "after the second load of its name")


@clause(Section.LOAD, sources.MULTI_MODEL)
def load_concurrent(bench: Bench) -> None:
    """Models with different names can be loaded at the same time."""
    models = [bench.model() for _ in range(_AT_ONCE)]
    for answer in bench.together([partial(bench.load, model) for model in models]):
        answer.expect(answer.ok, f"200 for each of {_AT_ONCE} models that are loaded at once")
    for model in models:
        bench.expect_comes_to_serve(model, f"after {_AT_ONCE} loads at once")


@clause(Section.LOAD, sources.APIS)
def load_concurrent_same_name(bench: Bench) -> None:
    """Of several loads of one name at the same time exactly one is 200, the others are 409."""
    with premise():
        load_conflict.check(bench)
    model = bench.model()
    answers = bench.together([partial(bench.load, model)] * _AT_ONCE)
    statuses = sorted(answer.status for answer in answers)
    right = answers and statuses[0] < 300 and statuses[1:] == [409] * (_AT_ONCE - 1)
    if not right:
        expected = f"200 once and 409 {_AT_ONCE - 1} times"
        raise Broken(f"{answers[0].curl}  # {_AT_ONCE} times at once", expected, f"{statuses}")
    bench.expect_comes_to_serve(model, f"after {_AT_ONCE} loads of its name")


@clause(Section.LOAD, sources.APIS)
def load_opaque_names(bench: Bench) -> None:
    """Names are opaque: whatever the platform makes up can be loaded, described, invoked and unloaded."""
    plain = bench.loaded()
    described = bench.server.get(plain.name).ok
    models = [bench.model(name) for name in _names()]
    for model in models:
        answer = bench.load(model)
        answer.expect(answer.ok, f"200 for the name {model.name}, beside {plain.name} and others")
    # All at once: names that a server takes for the same are two models.
    for model in models:
        bench.expect_comes_to_serve(model, f"under the name {model.name}")
        if described:
            bench.server.get(model.name).expect_status(200, f"for the name {model.name}")
    for model in models:
        answer = bench.unload(model)
        answer.expect(answer.ok, f"200 for the name {model.name}")


def _names() -> list[str]:
    """Return names of many forms, among them some that differ only in their case or after a dot."""
    digest = secrets.token_hex(32)
    return [
        digest,
        digest[:32],
        digest[:32].upper() + "A",
        digest[:32] + "a",
        "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])),
        f"Model_{digest[:8]}.v1.tar.gz",
        f"Model_{digest[:8]}.v2.tar.gz",
        f"model_{digest[:8]}.v1.tar.gz",
        f"0{digest[:7]}",
    ]


@clause(Section.LOAD, sources.APIS)
def load_with_target_header(bench: Bench) -> None:
    """The header X-Amzn-SageMaker-Target-Model on a load changes nothing."""
    other, model = bench.loaded(), bench.model()
    why = f"with the header {TARGET_MODEL} naming another model"
    answer = bench.load(model, {TARGET_MODEL: other.name})
    answer.expect(answer.ok, f"200 {why}")
    bench.expect_comes_to_serve(model, f"after a load {why}")
    bench.expect_serves(other, f"after a load of another model {why}")
