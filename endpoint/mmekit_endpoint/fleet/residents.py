"""Which models leave an instance's memory or volume first; pure decisions.

AWS publishes no policy ("unused models"); ours is the least recently used, by the last invocation that ended.
One with calls in flight or waiting never leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mmekit_endpoint.fleet.model import Model, State


def victim_in_memory(models: Iterable[Model], keep: Model | None = None) -> Model | None:
    """Return the loaded model to unload next, or None."""
    return _least_recent(
        model for model in models if model.state is State.LOADED and model.at_rest and model is not keep
    )


def phantom(models: Iterable[Model], tried: Collection[Model]) -> Model | None:
    """Return a model that may be in memory though nobody knows, or None; not one of those tried already."""
    return _least_recent(
        model
        for model in models
        if model.maybe_loaded and model.state is State.ON_DISK and model.at_rest and model not in tried
    )


def victim_on_disk(models: Iterable[Model], keep: Model | None = None) -> Model | None:
    """Return the model to delete next: one that is not loaded, else one that is and that nobody calls."""
    stored = [model for model in models if model.at_rest and model is not keep]
    return _least_recent(model for model in stored if model.state is State.ON_DISK) or _least_recent(
        model for model in stored if model.state is State.LOADED
    )


def may_free_memory(models: Iterable[Model], keep: Model | None, refused: Collection[Model]) -> bool:
    """Say whether a model that is in use now, or on its way into memory, could be unloaded later.

    Those that were ``refused`` wait for room themselves.
    """
    held = (State.LOADED, State.UNLOADING)
    return any(
        model.state in held or (model.state is State.LOADING and model not in refused)
        for model in models
        if model is not keep
    )


def _least_recent(models: Iterable[Model]) -> Model | None:
    return min(models, key=lambda model: model.last_used, default=None)
