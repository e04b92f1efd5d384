"""What the server counts: plain numbers, changed on the event loop and read by ``prometheus``.

A model has series of its own from its first load on, for the life of the server, as long as there are not
more than ``most_models`` of them; requests for all others share the series ``OTHER``. So counters never
go back, whatever is loaded and unloaded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from mmekit.errors import MmekitError, OutOfResources, PredictionTimeout

#: The name of the series of models that have none of their own.
OTHER = "other"

#: Upper bounds in seconds. Small models answer in a millisecond, a deadline is a minute.
REQUEST_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
#: SageMaker waits for 360 s for a load.
LOAD_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 360.0)


class Histogram:
    """Counts of values by their upper bounds, the last one for all beyond, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Histogram:
        twin = Histogram(self.bounds)
        twin.counts, twin.total = self.counts.copy(), self.total
        return twin


class Series:
    """What is counted for one model."""

    __slots__ = ("answers", "latency", "queued")

    def __init__(self) -> None:
        #: Answers by the first digit of their status.
        self.answers = [0] * 10
        self.latency = Histogram(REQUEST_BOUNDS)
        self.queued = Histogram(REQUEST_BOUNDS)


class Statistics:
    """The counters of one server. ``most_models`` models have series of their own."""

    def __init__(self, most_models: int) -> None:
        self._most_models = most_models
        self.other = Series()
        self.models: dict[str, Series] = {}
        #: All answers of the HTTP server, by status.
        self.statuses = [0] * 1000
        #: Streamed answers that ended before their end.
        self.cut_answers = 0
        #: How long it took to bring a model into a worker.
        self.load_seconds = Histogram(LOAD_BOUNDS)
        #: Requests to load a model by the status that they are answered with.
        self.loads: Counter[int] = Counter()
        self.unloads = 0
        #: Loads of models that had lost their worker, by status.
        self.reloads: Counter[int] = Counter()
        #: Copies loaded because a model was hot, and taken out by reason.
        self.copies_added = 0
        self.copies_dropped: Counter[str] = Counter()
        self.spares_released = 0
        #: Calls that held their worker's other models, so that those moved.
        self.stalls = 0
        self.quarantines = 0
        self.worker_starts: Counter[str] = Counter()
        self.worker_ends: Counter[str] = Counter()
        self.template_restarts = 0

    # --- on the way of a request ------------------------------------------------------------------

    def of(self, model: str) -> Series:
        """Return the series that a model counts in."""
        return self.models.get(model, self.other)

    def predicted(self, model: str, status: int, seconds: float) -> None:
        """Count the answer to a request for a model, ``seconds`` after it came."""
        series = self.models.get(model, self.other)
        series.answers[status // 100] += 1
        latency = series.latency  # its observe, without a call of its own
        latency.counts[bisect_left(REQUEST_BOUNDS, seconds)] += 1
        latency.total += seconds

    # --- rare -------------------------------------------------------------------------------------

    def registered(self, model: str) -> None:
        """Count a model that is there now, and give it series of its own, if there is room."""
        self.loads[200] += 1
        if len(self.models) < self._most_models and model != OTHER:
            self.models.setdefault(model, Series())

    def worker_ended(self, reason: MmekitError, as_planned: bool) -> None:
        """Count the end of a worker's process."""
        if isinstance(reason, PredictionTimeout):
            self.worker_ends["deadline"] += 1
        elif isinstance(reason, OutOfResources):
            self.worker_ends["memory"] += 1
        else:
            self.worker_ends["retired" if as_planned else "crash"] += 1
