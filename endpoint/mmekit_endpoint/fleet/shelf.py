"""What the parts of a model cache share: the models, and who is told of what is done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mmekit_endpoint.errors import ModelError
from mmekit_endpoint.fleet.ending import Ending
from mmekit_endpoint.fleet.model import Model
from mmekit_endpoint.settings import Settings
from mmekit_endpoint.telemetry.events import EventLog
from mmekit_endpoint.telemetry.statistics import VariantStatistics


class Shelf:
    """The target models of one instance, by name.

    ``model_error`` makes a ModelError of a container's status and text, ``ending`` knows how it ended.
    ``changed`` is set when a model became idle, or left memory or disk: who waits for room looks again.
    """

    def __init__(
        self,
        settings: Settings,
        endpoint: str,
        variant: str,
        instance: str,
        statistics: VariantStatistics,
        events: EventLog,
        model_error: Callable[[int, str], ModelError],
        ending: Ending,
    ) -> None:
        self.settings = settings
        self.instance = instance
        self.statistics = statistics
        self.model_error = model_error
        self.ending = ending
        self.models: dict[str, Model] = {}
        self.changed = asyncio.Event()
        self._endpoint = endpoint
        self._variant = variant
        self._events = events

    def event(self, kind: str, text: str, model: Model) -> None:
        """Write down what was done with a model."""
        self._events.add(
            kind,
            text,
            endpoint=self._endpoint,
            variant=self._variant,
            instance=self.instance,
            model=model.target,
        )
