"""How values are distributed: counts and sums by buckets whose bounds grow by 4.9 % each.

Count, sum, minimum and maximum are exact. A percentile is off by the width of its bucket at most, since each
bucket is represented by the mean of its values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, inf, log10

#: Each bucket's upper bound is 10 ** (1 / 48) times the one before, and every 48th is a power of ten.
BUCKETS_PER_DECADE = 48


def bucket(value: float) -> int:
    """Return the bucket of a value: i has those above bound(i - 1) up to bound(i); 0 has all up to 1."""
    return ceil(log10(value) * BUCKETS_PER_DECADE) if value > 1.0 else 0


def bound(index: int) -> float:
    """Return the upper bound of a bucket."""
    return float(10.0 ** (index / BUCKETS_PER_DECADE))


class Distribution:
    """Values of one kind, in any unit in which all below 1 are as good as equal."""

    __slots__ = ("counts", "maximum", "minimum", "sums")

    def __init__(self) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.sums: defaultdict[int, float] = defaultdict(float)
        self.minimum = inf
        self.maximum = -inf

    def add(self, value: float) -> None:
        """Take one value."""
        self.add_to(bucket(value), value)

    def add_to(self, index: int, value: float) -> None:
        """Take one value whose bucket is known."""
        self.counts[index] += 1
        self.sums[index] += value
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value

    def merge(self, other: Distribution) -> None:
        """Take over all values of another one."""
        for index, count in other.counts.items():
            self.counts[index] += count
            self.sums[index] += other.sums[index]
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts.values())

    @property
    def total(self) -> float:
        """The sum of all values."""
        return sum(self.sums.values())

    def values(self) -> Iterator[tuple[float, int]]:
        """Yield values that stand for all, each with its count, from the least to the greatest.

        Their number, sum, minimum and maximum are those of the values that were taken.
        """
        if not self.counts:
            return
        if self.count == 1 or self.minimum == self.maximum:
            yield self.minimum, self.count
            return
        lowest, highest = min(self.counts), max(self.counts)
        yield self.minimum, 1
        for index in sorted(self.counts):
            count, total = self.counts[index], self.sums[index]
            if index == lowest:
                count, total = count - 1, total - self.minimum
            if index == highest:
                count, total = count - 1, total - self.maximum
            if count:
                yield min(max(total / count, self.minimum), self.maximum), count
        yield self.maximum, 1

    def percentile(self, percent: float) -> float | None:
        """Return the least value that ``percent`` of all do not exceed; None where there are none."""
        return percentile(list(self.values()), percent)

    def below(self, indexes: Sequence[int]) -> list[int]:
        """Return how many values are not above the bounds of these buckets, in ascending order."""
        numbers = []
        running, found = 0, iter(sorted(self.counts.items()))
        pending = next(found, None)
        for index in indexes:
            while pending is not None and pending[0] <= index:
                running += pending[1]
                pending = next(found, None)
            numbers.append(running)
        return numbers


def percentile(values: Sequence[tuple[float, float]], percent: float) -> float | None:
    """Return the nearest-rank percentile of (value, count) in ascending order; None where there are none."""
    remaining = percent / 100 * sum(count for _, count in values)
    for value, count in values:
        remaining -= count
        if remaining <= 0:
            return value
    return values[-1][0] if values else None
