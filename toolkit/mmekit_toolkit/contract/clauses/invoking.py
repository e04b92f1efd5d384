"""``POST /models/{name}/invoke``: answers, statuses, several at once."""

from __future__ import annotations

import secrets
from collections import Counter
from functools import partial

from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.premises import unloaded
from mmekit_toolkit.contract.sample import ProbeSample
from mmekit_toolkit.contract.verdict import Skipped

#: Callers of each of two models at the same time, and requests of each.
_CALLERS, _REQUESTS = 4, 5
#: Models that are loaded while another is invoked.
_LOADS = 4


@clause(Section.INVOKE, sources.APIS)
def invoke(bench: Bench) -> None:
    """A loaded model is invoked with 200."""
    model = bench.model()
    loading = bench.load(model)
    if not loading.ok:
        raise Skipped(f"it needs a loaded model, and a load was answered with {loading}")
    answer = bench.invoke_patiently(model)
    answer.expect(not (fault := bench.sample.fault(answer, model.identity)), f"{fault} when it is loaded")


@clause(Section.INVOKE, sources.APIS)
def invoke_not_loaded(bench: Bench) -> None:
    """An invocation of a model that is not loaded is 404, so that the platform loads it."""
    sample = bench.sample
    never = bench.server.invoke(secrets.token_hex(16), sample.body, sample.headers)
    never.expect_status(404, "for a model that was never loaded")
    model = bench.loaded()
    unloaded(bench, model)
    bench.invoke(model).expect_status(404, "for a model that was unloaded")


@clause(Section.INVOKE, sources.MULTI_MODEL)
def invoke_concurrent(bench: Bench) -> str:
    """Invocations at the same time are each answered, each with its own answer."""
    models = [bench.loaded(), bench.loaded()]
    bench.together([partial(_call, bench, model) for model in models for _ in range(_CALLERS)])
    return f"{len(models) * _CALLERS} callers"


def _call(bench: Bench, model: Model) -> None:
    when = f"while {2 * _CALLERS} callers invoke two models"
    for _ in range(_REQUESTS):
        bench.expect_serves(model, when)
        if isinstance(bench.sample, ProbeSample):
            body = secrets.token_bytes(1000)
            answer = bench.server.invoke(model.name, body, {"Content-Type": "application/octet-stream"})
            answer.expect_status(200, when)
            answer.expect(answer.body == body, f"the bytes of this request, {when}")


@clause(Section.INVOKE, sources.MULTI_MODEL)
def invoke_during_load(bench: Bench) -> str:
    """Loaded models are invoked while others are being loaded."""
    model = bench.loaded()
    others = [bench.model() for _ in range(_LOADS)]
    answered: Counter[str] = Counter()

    def call() -> None:
        bench.expect_serves(model, "while other models are being loaded")
        answered["times"] += 1

    with bench.meanwhile(call):
        for other in others:
            bench.load(other)
    return f"{answered['times']} times during {_LOADS} loads"
