"""``DELETE /models/{name}``."""

from __future__ import annotations

import secrets
from functools import partial

from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.invoking import invoke_concurrent, invoke_during_load
from mmekit_toolkit.contract.clauses.loading import load_concurrent
from mmekit_toolkit.contract.clauses.premises import expect_not_loaded, premise, unloaded

#: Models that come and go at the same time, and how often each does.
_AT_ONCE, _ROUNDS = 4, 5


@clause(Section.UNLOAD, sources.APIS)
def unload(bench: Bench) -> None:
    """An unload is 200; the model is then gone and can be loaded again."""
    other, model = bench.loaded(), bench.loaded()
    bench.unload(model).expect_status(200)
    expect_not_loaded(bench, model, other, "this model was unloaded")
    again = bench.load(model)
    again.expect(again.ok, "200 for a model that was unloaded")
    bench.expect_comes_to_serve(model, "when it was loaded again")


@clause(Section.UNLOAD, sources.APIS)
def unload_not_loaded(bench: Bench) -> None:
    """An unload of a model that is not loaded is 404."""
    bench.server.unload(secrets.token_hex(16)).expect_status(404, "for a model that was never loaded")
    model = bench.loaded()
    unloaded(bench, model)
    bench.unload(model).expect_status(404, "for a model that was unloaded already")


@clause(Section.UNLOAD, sources.MULTI_MODEL)
def unload_churn(bench: Bench) -> str:
    """Models can be loaded, invoked and unloaded again and again, as ModelCacheSetting=Disabled does."""
    other, gone = bench.loaded(), bench.loaded()
    unloaded(bench, gone)
    with premise():
        expect_not_loaded(bench, gone, other, "this model was unloaded")
        load_concurrent.check(bench)
        invoke_concurrent.check(bench)
        invoke_during_load.check(bench)
    models = [bench.model() for _ in range(_AT_ONCE)]
    bench.together([partial(_come_and_go, bench, model) for model in models])
    for model in models:
        expect_not_loaded(bench, model, other, "this model was unloaded at the end")
    return f"{_ROUNDS} times each, {_AT_ONCE} models at once"


def _come_and_go(bench: Bench, model: Model) -> None:
    for round_ in range(1, _ROUNDS + 1):
        when = f"in round {round_} of {_ROUNDS}, {_AT_ONCE} models at once"
        loading = bench.load(model)
        loading.expect(loading.ok, f"200 {when}")
        bench.expect_comes_to_serve(model, when)
        unloading = bench.unload(model)
        unloading.expect(unloading.ok, f"200 {when}")
