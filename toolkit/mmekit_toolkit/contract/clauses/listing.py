"""``GET /models`` and ``GET /models/{name}``."""

from __future__ import annotations

import secrets
from collections import Counter

from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.clause import Section, clause
from mmekit_toolkit.contract.clauses import sources
from mmekit_toolkit.contract.clauses.premises import all_pages, nothing_is_loaded
from mmekit_toolkit.contract.verdict import Broken, Skipped

#: More than two pages of Multi Model Server's 100, and no multiple of usual page sizes.
_MANY = 250
#: Fewer would fit on one page of most servers.
_ENOUGH = 101
#: After so many models it is known what one takes.
_MEASURED = 5


@clause(Section.LIST, sources.OBSERVED)
def list_empty(bench: Bench) -> None:
    """GET /models is 200 with an empty list while no model is loaded; it is part of the health check."""
    nothing_is_loaded(bench)
    for answer, entries in all_pages(bench):
        answer.expect(not entries, 'an empty list, {"models": []}')


@clause(Section.LIST, sources.APIS)
def list_one(bench: Bench) -> None:
    """A loaded model is listed once, with its modelName and modelUrl as they were loaded."""
    model = bench.loaded()
    expected = {"modelName": model.name, "modelUrl": model.url}
    pages = all_pages(bench)
    found = [
        {key: entry.get(key) for key in expected}
        for _, entries in pages
        for entry in entries
        if entry.get("modelName") == model.name
    ]
    pages[0][0].expect(found == [expected], f"one entry of that name: {expected}")


@clause(Section.LIST, sources.APIS, deadline_s=600.0)
def list_many(bench: Bench) -> str:
    """Following nextPageToken, 250 models are listed once each, and the listing ends."""
    models = _load_many(bench)
    pages = all_pages(bench)
    counts = Counter(str(entry.get("modelName")) for _, entries in pages for entry in entries)
    missing = [model.name for model in models if not counts[model.name]]
    repeated = [model.name for model in models if counts[model.name] > 1]
    if missing or repeated:
        found = [f"{len(pages)} pages with {[len(entries) for _, entries in pages]} entries"]
        found += [f"{len(missing)} are missing, such as {missing[0]}"] if missing else []
        found += [f"{len(repeated)} are listed more than once, such as {repeated[0]}"] if repeated else []
        expected = f"each of {len(models)} loaded models exactly once"
        raise Broken(f"{pages[0][0].curl}  # and all pages after it", expected, "; ".join(found))
    return f"{len(models)} models on {len(pages)} pages"


def _load_many(bench: Bench) -> list[Model]:
    """Load as many models, and never so many that this machine gets into need."""
    models: list[Model] = []
    wanted = _MANY
    before = bench.running.memory_bytes()
    while len(models) < wanted:
        if len(models) == _MEASURED and before is not None:
            wanted = _that_fit(bench, before)
        model = bench.model()
        answer = bench.load(model)
        if answer.status == 507 and len(models) >= _ENOUGH:
            break  # no more fit; what fits needs several pages already
        if not answer.ok:
            raise Skipped(
                f"it needs {_MANY} loaded models; load {len(models) + 1} was answered with {answer}"
            )
        models.append(model)
    return models


def _that_fit(bench: Bench, before: int) -> int:
    """Return how many models to load, from what the first have taken and this machine has. Raises Skipped."""
    now, room = bench.running.memory_bytes(), bench.running.room_bytes()
    if now is None or room is None:
        return _MANY
    cost = max((now - before) // _MEASURED, 1)
    if cost * _ENOUGH > room:
        raise Skipped(
            f"a model takes {cost >> 20} MiB: {_ENOUGH} would take more than half of this machine's memory"
        )
    return min(_MANY, max(_ENOUGH, room // 2 // cost))


@clause(Section.GET, sources.APIS)
def get(bench: Bench) -> None:
    """A loaded model is described with 200, its modelName and its modelUrl."""
    model = bench.loaded()
    answer = bench.server.get(model.name)
    answer.expect_status(200)
    expected = {"modelName": model.name, "modelUrl": model.url}
    found = answer.json
    right = isinstance(found, dict) and expected.items() <= found.items()
    answer.expect(right, f"an object with {expected}")


@clause(Section.GET, sources.APIS)
def get_not_loaded(bench: Bench) -> None:
    """A model that is not loaded is 404."""
    if not (described := bench.server.get(bench.loaded().name)).ok:
        raise Skipped(f"it needs GET of a model; that of a loaded one was answered with {described.status}")
    bench.server.get(secrets.token_hex(16)).expect_status(404)
