"""``/ping``: without models, idle and under load."""

from __future__ import annotations

import time
from functools import partial

from mmekit_toolkit.contract import probe
from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.premises import nothing_is_loaded, premise
from mmekit_toolkit.contract.sample import ProbeSample
from mmekit_toolkit.contract.watch import Watch
from mmekit_toolkit.contract.wire import PING_TIMEOUT_S, Answer, Unanswered

#: How many times an idle server is asked.
_ATTEMPTS = 5
#: Seconds that invocations wait in the model, so that some are always under way; one of them for longer than
#: an attempt of /ping has.
_SHORT_S, _LONG_S = 0.5, 4.0
_PAUSE_S = 0.1
#: Where this machine stood still for so long, too little of that time was the server's: another round.
_LOST_S, _ROUNDS = 1.0, 3
#: Seconds of an attempt where its time is not the question.
_PATIENCE_S = 10.0


@clause(Section.HEALTH, sources.INFERENCE_CODE)
def ping_without_models(bench: Bench) -> None:
    """/ping is 200 while no model is loaded."""
    nothing_is_loaded(bench)
    answer = bench.server.ping(_PATIENCE_S)
    answer.expect_status(200, "with no model loaded: models come after the health check")


@clause(Section.HEALTH, sources.INFERENCE_CODE)
def ping_idle(bench: Bench) -> str:
    """/ping answers within 2 s."""
    slowest = max(_ping(bench).took_s for _ in range(_ATTEMPTS))
    return f"at most {slowest * 1000:.0f} ms"


@clause(Section.HEALTH, sources.INFERENCE_CODE)
def ping_under_load(bench: Bench) -> str:
    """/ping is 200 within 2 s while models are loaded, invoked and unloaded."""
    long, short, passing = bench.loaded(), bench.loaded(), bench.model()
    with premise():
        _ping(bench).expect_status(200, "with models loaded")
    answers: list[Answer] = []
    call = partial(_invoke, bench, short, _SHORT_S)
    for _ in range(_ROUNDS):
        with Watch() as watch, bench.meanwhile(call, call, partial(_come_and_go, bench, passing)):
            bench.together([partial(_invoke, bench, long, _LONG_S), partial(_ping_on, bench, answers)])
            if watch.lost_s < _LOST_S:
                break
    slowest = max(answer.took_s for answer in answers)
    return f"{len(answers)} times, at most {slowest * 1000:.0f} ms"


def _ping_on(bench: Bench, answers: list[Answer]) -> None:
    """Ping while an invocation is under way that is longer than a ping may be."""
    until = time.monotonic() + _LONG_S
    while time.monotonic() < until:
        answer = _ping(bench)
        answer.expect_status(200, "while models are loaded, invoked and unloaded")
        answers.append(answer)
        time.sleep(_PAUSE_S)


def _ping(bench: Bench) -> Answer:
    try:
        return bench.server.ping()
    except Unanswered as error:
        raise error.broken(f"an answer within {PING_TIMEOUT_S:g} s") from error


def _invoke(bench: Bench, model: Model, wait_s: float) -> None:
    """Keep the server busy; what it answers is for others to judge."""
    body = probe.wait(wait_s) if isinstance(bench.sample, ProbeSample) else bench.sample.body
    try:
        bench.server.invoke(model.name, body, bench.sample.headers)
    except Unanswered:
        time.sleep(_PAUSE_S)  # do not spin


def _come_and_go(bench: Bench, model: Model) -> None:
    try:
        bench.load(model)
        bench.unload(model)
    except Unanswered:
        time.sleep(_PAUSE_S)  # do not spin
