"""What clauses build on; where it is missing they are skipped, since another clause names that fault."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from mmekit_toolkit.contract.bench import Bench, Model
from mmekit_toolkit.contract.subjects import Form
from mmekit_toolkit.contract.verdict import Broken, Skipped
from mmekit_toolkit.contract.wire import Answer

#: Pages that a listing may have.
_MOST_PAGES = 1000


def nothing_is_loaded(bench: Bench) -> None:
    """Raise Skipped where somebody else's models are loaded, as they may be in a server that runs."""
    if bench.subject.form is not Form.URL:
        return
    found = bench.server.list().json
    if isinstance(found, dict) and found.get("models"):
        raise Skipped(f"models are loaded that are not the kit's: {len(found['models'])} on the first page")


def all_pages(bench: Bench) -> list[tuple[Answer, list[Mapping[str, Any]]]]:
    """Follow ``nextPageToken`` to the end; return each page's answer and entries.

    Raises Broken for what is no page, and for a listing without an end.
    """
    pages: list[tuple[Answer, list[Mapping[str, Any]]]] = []
    tokens: list[str | None] = [None]
    while True:
        answer = bench.server.list(tokens[-1])
        answer.expect_status(200)
        page = answer.json
        entries = page.get("models") if isinstance(page, dict) else None
        right = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
        answer.expect(right, 'an object {"models": [{"modelName": …, "modelUrl": …}, …]}')
        assert isinstance(page, dict)
        assert isinstance(entries, list)
        pages.append((answer, entries))
        token = page.get("nextPageToken")
        if token is None:
            return pages
        answer.expect(isinstance(token, str), "a nextPageToken that is a string, or none at the end")
        endless = token in tokens or len(pages) >= _MOST_PAGES
        answer.expect(not endless, "an end of the listing: this nextPageToken leads round in a circle")
        tokens.append(token)


def listed(bench: Bench) -> set[str]:
    """Return the names of all models that are listed. Raises Skipped where the list cannot be read."""
    try:
        return {str(entry.get("modelName")) for _, entries in all_pages(bench) for entry in entries}
    except Broken as error:
        raise Skipped(f"it needs the list of models: {error}") from error


@contextlib.contextmanager
def premise() -> Iterator[None]:
    """Raise Skipped where what the block does is Broken: it is checked by a clause of its own."""
    try:
        yield
    except Broken as error:
        raise Skipped(f"it needs what another clause checks: {error}") from error


def unloaded(bench: Bench, model: Model) -> None:
    """Unload a model. Raises Skipped where it stays."""
    answer = bench.unload(model)
    if not answer.ok or is_loaded(bench, model):
        raise Skipped(f"it needs a model that is gone; its unload was answered with {answer.status}")


def is_loaded(bench: Bench, model: Model) -> bool:
    """Return whether a model is loaded, as far as GET or the list tell."""
    return bench.server.get(model.name).status != 404 and model.name in listed(bench)


def expect_not_loaded(bench: Bench, model: Model, other: Model, why: str) -> None:
    """Raise Broken where GET or the list know the model; ``other`` is loaded, so that the list is not empty.

    What tells nothing is not asked: GET of any model fails, or of any is 200; there is no list.
    """
    tells = bench.server.get(other.name).ok and not bench.server.get(secrets.token_hex(16)).ok
    answer = bench.server.get(model.name)
    answer.expect(not (tells and answer.ok), f"404: {why}")
    try:
        names = listed(bench)
    except Skipped:
        return
    if model.name in names:
        answer = bench.server.list()
        raise Broken(answer.curl, f"no entry {model.name}: {why}", str(answer))


def failed_load(bench: Bench) -> Model:
    """Load a broken model and return it. Raises Skipped where the server answers that with 2xx."""
    model = bench.broken_model()
    answer = bench.load(model)
    if answer.ok:
        raise Skipped(f"it needs a load that fails; that of a broken model was answered with {answer.status}")
    return model
