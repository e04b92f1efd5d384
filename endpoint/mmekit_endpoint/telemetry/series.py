"""All that is counted of one thing: a variant, one of its models, or a variant since its last publication."""

from __future__ import annotations

from mmekit_endpoint.telemetry.distribution import Distribution

#: Places in ``Series.answers``, where 1 to 9 are statuses by their first digit: of a timeout, a broken
#: connection or a malformed answer, and of a request that the container never got.
NO_ANSWER = 0
UNSENT = 10


class Series:
    """Counts and times (microseconds); nothing here ever goes back."""

    __slots__ = (
        "answers",
        "downloaded_bytes",
        "downloading",
        "evicted_from_disk",
        "evicted_from_memory",
        "hits",
        "latency",
        "load_failures",
        "loading",
        "misses",
        "overhead",
        "unloading",
        "waiting",
    )

    def __init__(self) -> None:
        self.answers = [0] * (UNSENT + 1)
        self.hits = 0
        self.misses = 0
        self.latency = Distribution()
        self.overhead = Distribution()
        self.waiting = Distribution()
        self.downloading = Distribution()
        self.loading = Distribution()
        self.unloading = Distribution()
        self.downloaded_bytes = 0
        self.load_failures = 0
        self.evicted_from_memory = 0
        self.evicted_from_disk = 0

    def invocation(
        self,
        place: int,
        latency: tuple[int, float],
        overhead: tuple[int, float],
        hit: bool | None,
    ) -> None:
        """Count a request; times come with their buckets."""
        self.answers[place] += 1
        if hit is not None:
            if hit:
                self.hits += 1
            else:
                self.misses += 1
        if place != UNSENT:
            self.latency.add_to(*latency)
        self.overhead.add_to(*overhead)

    def merge(self, other: Series) -> None:
        """Take over all that another one has."""
        for place, count in enumerate(other.answers):
            self.answers[place] += count
        self.hits += other.hits
        self.misses += other.misses
        self.latency.merge(other.latency)
        self.overhead.merge(other.overhead)
        self.waiting.merge(other.waiting)
        self.downloading.merge(other.downloading)
        self.loading.merge(other.loading)
        self.unloading.merge(other.unloading)
        self.downloaded_bytes += other.downloaded_bytes
        self.load_failures += other.load_failures
        self.evicted_from_memory += other.evicted_from_memory
        self.evicted_from_disk += other.evicted_from_disk

    @property
    def invocations(self) -> int:
        """Requests that came for it."""
        return sum(self.answers)

    @property
    def model_errors(self) -> int:
        """Requests that were not answered with 2xx (InvocationModelErrors)."""
        return self.invocations - self.answers[2]

    @property
    def is_empty(self) -> bool:
        """Whether nothing of what is published was counted."""
        return not (
            any(self.answers)
            or self.waiting.counts
            or self.downloading.counts
            or self.loading.counts
            or self.unloading.counts
        )
