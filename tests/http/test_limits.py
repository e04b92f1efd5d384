"""The body budget by itself: a line, no deadlock, a flat stack."""

from __future__ import annotations

from mmekit.http import BodyBudget, Limits


class Body:
    def __init__(
        self, name: str, admitted: list[str], budget: BodyBudget | None = None, size: int = 0
    ) -> None:
        self.name = name
        self._admitted = admitted
        self._budget = budget
        self._size = size

    def admit(self) -> None:
        self._admitted.append(self.name)
        if self._budget is not None:
            self._budget.release(self._size)


def test_a_small_body_does_not_overtake_a_large_one_that_waits() -> None:
    budget, admitted = BodyBudget(100), list[str]()
    assert budget.reserve(60, Body("first", admitted))
    assert not budget.reserve(60, Body("large", admitted))
    assert not budget.reserve(1, Body("small", admitted))
    budget.release(60)
    assert admitted == ["large", "small"]
    assert budget.used_bytes == 61


def test_those_behind_one_who_leaves_the_line_are_admitted_if_they_fit() -> None:
    budget, admitted = BodyBudget(100), list[str]()
    assert budget.reserve(60, Body("first", admitted))
    large = Body("large", admitted)
    assert not budget.reserve(60, large)
    assert not budget.reserve(40, Body("small", admitted))
    budget.cancel(large)
    assert admitted == ["small"]
    assert budget.used_bytes == 100


def test_thousands_that_are_answered_as_soon_as_admitted_do_not_recurse() -> None:
    budget, admitted = BodyBudget(10), list[str]()
    assert budget.reserve(10, Body("first", admitted))
    for n in range(5000):
        assert not budget.reserve(10, Body(str(n), admitted, budget, 10))
    budget.release(10)
    assert admitted == [str(n) for n in range(5000)]
    assert budget.used_bytes == 0


def test_the_tick_is_a_quarter_of_the_shortest_timeout_and_at_most_a_second() -> None:
    assert Limits(read_timeout_s=0.4).tick_s == 0.1
    assert Limits(linger_timeout_s=10).tick_s == 1.0
