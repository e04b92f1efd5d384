"""Memory: back when an unload answers, and 507 when there is none left."""

from __future__ import annotations

import time

from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.clause import STARTED, Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.premises import is_loaded
from mmekit_toolkit.contract.sample import ProbeSample
from mmekit_toolkit.contract.subjects import END_IS_SEEN_S, Form, NotStarted
from mmekit_toolkit.contract.verdict import Broken, Skipped
from mmekit_toolkit.contract.wire import Answer, Unanswered

MIB = 1 << 20

#: What the model of the unload holds. Far more than a server that makes itself ready for the next load takes.
_HELD_MIB = 256
#: Share of what was held that may stay: allocators keep pages, and a spare worker of 20 to 30 MiB may have
#: come in the model's place. A model that is freed after the answer leaves all of it.
_STAYS = 0.25
#: A server that does not wait for the end of a process may be lucky once.
_ROUNDS = 3
#: What copies of a person's model must hold together so that their coming and going can be told from noise.
_TELLING_BYTES = 64 * MIB
_MOST_COPIES = 16

#: What one model holds when memory is to run out, and how many fit beside twice what the idle server uses.
_FILLING_MIB = 64
_ROOM_FOR = 6
#: More loads of a person's model than this take too long.
_MOST_LOADS = 150
#: Seconds in which an unload may make room after its answer; that it should before is another clause's rule.
_PATIENCE_S = 2.0


@clause(Section.UNLOAD, sources.APIS, STARTED)
def unload_frees_memory(bench: Bench) -> str:
    """A model's memory is free when its unload is answered."""
    bench.unload(bench.loaded())  # what a first load leaves behind for all is no model's
    rounds = [_come_and_go(bench) for _ in range(_ROUNDS)]
    held, stays = max(rounds, key=lambda round_: round_[1] / round_[0])
    return (
        f"{_mib(held)} held, {_mib(max(stays, 0))} left when the unload was answered; the worst of {_ROUNDS}"
    )


def _come_and_go(bench: Bench) -> tuple[int, int]:
    """Load and unload; return what was held, and what was left of it. Raises Broken when that is too much."""
    before = _memory(bench)
    models = _load_telling(bench, before)
    held = _memory(bench) - before
    answers = [bench.unload(model) for model in models]
    left = bench.running.memory_bytes()  # before anything else is asked: it is to be free
    if any(not answer.ok or is_loaded(bench, model) for answer, model in zip(answers, models, strict=True)):
        raise Skipped(f"it needs a model that is gone; its unload was answered with {answers[-1].status}")
    stays = _told(left) - before
    if stays > held * _STAYS:
        raise Broken(
            f"{answers[-1].curl}  # then the memory of the server's processes, right after the answer",
            f"that at most {_STAYS:.0%} of {_mib(held)} stay in use when the unload is answered",
            f"{_mib(stays)} more in use than before the load",
        )
    return held, stays


def _load_telling(bench: Bench, before: int) -> list[Model]:
    """Load one large model of the kit, or so many copies of the person's that their memory can be told."""
    if isinstance(bench.sample, ProbeSample):
        models = [bench.loaded(bench.model_holding(_HELD_MIB))]
    else:
        models = []
        while len(models) < _MOST_COPIES and _memory(bench) - before < _TELLING_BYTES:
            models.append(bench.loaded())
    held = _memory(bench) - before
    if held < _TELLING_BYTES:
        raise Skipped(f"{len(models)} models take {_mib(held)}: too little to tell whether it is free again")
    return models


def _memory(bench: Bench) -> int:
    return _told(bench.running.memory_bytes())


def _told(memory_bytes: int | None) -> int:
    if memory_bytes is None:
        raise Skipped(
            "what the server's processes use cannot be told: this machine does not say, they are another "
            "user's, or they come and go all the time"
        )
    return memory_bytes


@clause(Section.LOAD, sources.APIS, (Form.IMAGE,), deadline_s=600.0)
def load_out_of_memory(bench: Bench) -> str:
    """When memory is short a load is 507; after an unload it succeeds, and the server lives on."""
    limit_bytes, most = _limit(bench)
    try:
        with bench.another(memory_limit_bytes=limit_bytes) as full:
            return _fill_and_make_room(full, limit_bytes, most)
    except NotStarted as error:
        raise Skipped(
            f"in a container of {_mib(limit_bytes)} the server does not start: {error.message}"
        ) from error


def _fill_and_make_room(full: Bench, limit_bytes: int, most: int) -> str:
    try:
        models, refused = _fill(full, limit_bytes, most)
        for model in (models[0], models[-1]):
            full.expect_comes_to_serve(
                model, f"after a load that was answered with 507, {len(models)} are loaded"
            )
        unloaded = _make_room(full, models, refused)
        full.expect_comes_to_serve(refused, "when it was loaded after all")
    except (Unanswered, Broken) as error:
        _blame_the_end(full, error)
        raise
    unloads = "1 unload" if unloaded == 1 else f"{unloaded} unloads"
    return f"507 with {len(models)} models loaded in {_mib(limit_bytes)}; 200 after {unloads}"


def _limit(bench: Bench) -> tuple[int, int]:
    """Return a limit in bytes in which several models fit, and a number of models that cannot fit."""
    own = not isinstance(bench.sample, ProbeSample)
    bench.unload(bench.loaded())
    idle = _memory(bench)
    count = 4 if own else 1
    for _ in range(count):
        bench.loaded(bench.model() if own else bench.model_holding(_FILLING_MIB))
    cost = max((_memory(bench) - idle) // count, 1)
    limit = max(2 * idle, 256 * MIB) + _ROOM_FOR * cost
    most = limit // (cost if own else _FILLING_MIB * MIB) + 1
    if most > _MOST_LOADS:
        raise Skipped(
            f"a model takes {_mib(cost)}, the server alone {_mib(idle)}: filling {_mib(limit)} takes "
            f"{most} loads; name a larger one with --model, or leave --model out"
        )
    # What a model costs beside others may be less than it did alone.
    return -(-limit // MIB) * MIB, most * 2 if own else most


def _fill(full: Bench, limit_bytes: int, most: int) -> tuple[list[Model], Model]:
    """Load until 507; return the loaded models and the one that was refused."""
    models: list[Model] = []
    own = not isinstance(full.sample, ProbeSample)
    answer: Answer | None = None
    while len(models) <= most:
        model = full.model() if own else full.model_holding(_FILLING_MIB)
        answer = full.load(model)
        if answer.status == 507:
            if not models:
                raise Skipped(f"no model could be loaded in {_mib(limit_bytes)}: 507 came at once")
            return models, model
        answer.expect(answer.ok, f"200 or 507, in a container of {_mib(limit_bytes)}")
        models.append(model)
    assert answer is not None
    holding = "" if own else f" that hold {_FILLING_MIB} MiB each"
    raise Broken(
        answer.curl,
        f"507: {len(models)} models{holding} do not fit in a container of {_mib(limit_bytes)}",
        f"200 for each of {len(models)}",
    )


def _make_room(full: Bench, models: list[Model], refused: Model) -> int:
    """Unload models as the platform does, until the refused one can be loaded; return how many."""
    answer = None
    for count, model in enumerate(models, 1):
        unloading = full.unload(model)
        unloading.expect(unloading.ok, "200 for one of the models that fill the memory")
        until = time.monotonic() + _PATIENCE_S
        while True:
            answer = full.load(refused)
            if answer.ok:
                return count
            answer.expect_status(507, "or 200: the load was refused for lack of memory, and is tried again")
            if time.monotonic() > until:
                break
            time.sleep(0.5)
    assert answer is not None
    raise Broken(answer.curl, f"200, now that {len(models)} models were unloaded", str(answer))


def _blame_the_end(full: Bench, error: Unanswered | Broken) -> None:
    """Raise Broken with the server's end where it has ended; that explains what was seen."""
    if (how := full.running.wait_end(END_IS_SEEN_S)) is not None:
        sent = error.curl if isinstance(error, Unanswered) else error.sent
        expected = "507, and a server that goes on running"
        raise Broken(sent, expected, f"the server {how}", full.running.last_lines()) from error


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB"
