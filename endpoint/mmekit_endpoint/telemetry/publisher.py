"""Publishes metrics to CloudWatch: collects them in the event loop, each endpoint's in its own period."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.settings import Settings
from mmekit_endpoint.telemetry.cloudwatch import Entries, Entry, in_service
from mmekit_endpoint.telemetry.outbox import Outbox
from mmekit_endpoint.telemetry.statistics import Statistics

#: AWS: "Define a scaling policy": ConcurrentRequestsPerModel comes every 10 seconds.
_CONCURRENCY_PERIOD_S = 10.0

#: Between two looks for what is due, in seconds.
_SHORTEST_S, _LONGEST_S = 0.1, 10.0

#: How long the last publication may take, in seconds.
_LAST_S = 5.0


class Publisher:
    """Publishes all endpoints' metrics, each in its region.

    ``client`` makes a boto3 client of (region, service); it is called in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        statistics: Statistics,
        views: Callable[[], list[EndpointView]],
        client: Callable[[str, str], Any],
    ) -> None:
        self._period_s = settings.metrics_period_s
        self._region = settings.region
        self._statistics = statistics
        self._views = views
        self._outbox = Outbox(client)
        self._enough = threading.Event()
        #: By endpoint: when it is published next, on the event loop's clock.
        self._due: dict[str, float] = {}
        self._concurrency_due: dict[str, float] = {}
        #: What was last known of endpoints and variants; for those that are not there any more.
        self._regions: dict[str, str] = {}
        self._active: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Publish until cancelled, then once more what is left."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                self._collect(clock())
                await asyncio.shield(asyncio.to_thread(self._outbox.send, self._enough))
                await asyncio.sleep(self._pause_s(clock()))
        finally:
            self._collect(clock(), everything=True)
            last = asyncio.ensure_future(asyncio.to_thread(self._outbox.send, self._enough))
            await asyncio.wait([last], timeout=_LAST_S)
            self._enough.set()

    def _collect(self, now: float, *, everything: bool = False) -> None:
        """Put all that is due into the outbox."""
        at = datetime.now(timezone.utc).replace(microsecond=0)
        views = {view.name: view for view in self._views()}
        self._remember(views)
        for endpoint, variant, window in self._statistics.take_forgotten():
            active = self._active.get((endpoint, variant), 1)
            region = self._regions.get(endpoint, self._region)
            self._outbox.put(region, Entries(endpoint, variant, at).counted(window, active))
        for view in views.values():
            period_s = view.metrics_period_s or self._period_s
            if _is_due(self._due, view.name, period_s, now) or everything:
                self._outbox.put(view.region, self._of_endpoint(view, at))
            concurrency_period_s = min(_CONCURRENCY_PERIOD_S, period_s)
            if _is_due(self._concurrency_due, view.name, concurrency_period_s, now) or everything:
                self._outbox.put(view.region, _concurrency(view, at))
        self._forget(views)

    def _of_endpoint(self, view: EndpointView, at: datetime) -> Iterator[Entry]:
        variants = {variant.name: variant for variant in view.variants}
        for (endpoint, name), counted in self._statistics.variants.items():
            if endpoint != view.name:
                continue
            entries = Entries(endpoint, name, at)
            variant = variants.get(name)
            window = counted.take_window()
            if variant is not None or not window.is_empty:  # else its fleet is gone, and its last calls too
                yield from entries.counted(window, self._active.get((endpoint, name), 1))
            if variant is not None:
                yield from entries.of_instances(variant)

    def _remember(self, views: dict[str, EndpointView]) -> None:
        for view in views.values():
            self._regions[view.name] = view.region
            for variant in view.variants:
                if active := len(in_service(variant)):
                    self._active[view.name, variant.name] = active

    def _forget(self, views: dict[str, EndpointView]) -> None:
        for name in self._regions.keys() - views.keys():
            del self._regions[name]
            self._due.pop(name, None)
            self._concurrency_due.pop(name, None)
            self._active = {key: active for key, active in self._active.items() if key[0] != name}

    def _pause_s(self, now: float) -> float:
        next_due = min([*self._due.values(), *self._concurrency_due.values()], default=now + _LONGEST_S)
        return max(_SHORTEST_S, min(next_due - now, self._period_s, _LONGEST_S))


def _is_due(due: dict[str, float], name: str, period_s: float, now: float) -> bool:
    """Return whether it is time for that name, and set its next time; a new one is due at once."""
    at = due.get(name, now)
    if now < at:
        return False
    due[name] = max(at + period_s, now)
    return True


def _concurrency(view: EndpointView, at: datetime) -> Iterator[Entry]:
    for variant in view.variants:
        yield from Entries(view.name, variant.name, at).concurrency(variant)
