"""Which models leave an instance's memory or volume first; pure decisions.

AWS publishes no policy ("unused models"); ours is the least recently used, by the last invocation that ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmekit_endpoint.fleet.model import Model, State


def victim_in_memory(models: Iterable[Model], keep: Model | None = None) -> Model | None:
    """Return the loaded model to unload next, or None. One with calls in flight or waiting is never it."""
    return _least_recent(
        model for model in models if model.state is State.LOADED and model.idle and model is not keep
    )


def victim_on_disk(models: Iterable[Model], keep: Model | None = None) -> Model | None:
    """Return the model to delete next: one that is not loaded, else one that is and that nobody calls."""
    stored = [model for model in models if model.idle and model is not keep]
    return _least_recent(model for model in stored if model.state is State.ON_DISK) or _least_recent(
        model for model in stored if model.state is State.LOADED
    )


def may_free_memory(models: Iterable[Model], keep: Model | None = None) -> bool:
    """Say whether a model that is in use now could be unloaded later."""
    held = (State.LOADED, State.UNLOADING)
    return any(model.state in held and model is not keep for model in models)


def _least_recent(models: Iterable[Model]) -> Model | None:
    return min(models, key=lambda model: model.last_used, default=None)
