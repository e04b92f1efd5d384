"""The queue of one model: bounded, first in first out, taken in batches; the clock is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmekit.errors import ServiceUnavailable
from mmekit.server.queues import MAX_BATCH_BYTES, Batching, ModelQueue, Pending, ServerQueue


@dataclass(eq=False)
class Client:
    """Somebody who waits, or has left."""

    gone: bool = False
    answers: list[object] = field(default_factory=list)


def pending(size: int = 1, client: Client | None = None, alone: bool = False) -> Pending:
    return Pending(client or Client(), "id", [], b"x" * size, alone=alone)  # type: ignore[arg-type]


def queue(size: int = 10, server: int = 100) -> ModelQueue:
    return ModelQueue("m", size, ServerQueue(server))


def test_requests_leave_in_the_order_they_came() -> None:
    waiting = queue()
    sent = [pending() for _ in range(5)]
    for number, request in enumerate(sent):
        waiting.push(request, float(number))
    assert [waiting.take(Batching())[0] for _ in sent] == sent
    assert waiting.take(Batching()) == []


def test_a_full_queue_refuses_and_names_its_setting() -> None:
    waiting = queue(size=2)
    waiting.push(pending(), 0)
    waiting.push(pending(), 0)
    with pytest.raises(
        ServiceUnavailable, match=r"model: m\. 2 requests wait.*SAGEMAKER_MODEL_JOB_QUEUE_SIZE"
    ):
        waiting.push(pending(), 0)
    assert (len(waiting), waiting.shared.waiting) == (2, 2)
    waiting.take(Batching())
    waiting.push(pending(), 0)


def test_all_queues_share_one_bound() -> None:
    shared = ServerQueue(2)
    first, second = ModelQueue("a", 10, shared), ModelQueue("b", 10, shared)
    first.push(pending(), 0)
    second.push(pending(), 0)
    with pytest.raises(ServiceUnavailable, match=r"2 requests wait on this server.*MMEKIT_QUEUE_SIZE"):
        first.push(pending(), 0)
    second.take(Batching())
    first.push(pending(), 0)


def test_a_queue_full_of_clients_that_left_has_room() -> None:
    waiting = queue(size=3)
    clients = [Client(), Client(), Client()]
    for client in clients:
        waiting.push(pending(client=client), 0)
    clients[1].gone = True
    last = pending()
    waiting.push(last, 1)
    assert [request.caller for request in waiting.take(Batching(8))] == [clients[0], clients[2], last.caller]
    assert waiting.shared.waiting == 0


def test_clients_that_left_are_not_taken_and_do_not_count_in_a_batch() -> None:
    waiting = queue()
    left, stays = Client(gone=True), Client()
    for client in (left, stays, left, stays, left):
        waiting.push(pending(client=client), 0)
    taken = waiting.take(Batching(2))
    assert [request.caller for request in taken] == [stays, stays]
    assert waiting.drop_gone_heads() is False
    assert (len(waiting), waiting.shared.waiting) == (0, 0)


@pytest.mark.parametrize(("count", "size", "expected"), [(3, 64, 3), (65, 64, 64), (5, 1, 1), (4, 4, 4)])
def test_a_batch_has_at_most_its_size(count: int, size: int, expected: int) -> None:
    waiting = queue(size=100)
    for _ in range(count):
        waiting.push(pending(), 0)
    assert len(waiting.take(Batching(size))) == expected


def test_a_batch_has_at_most_a_mebibyte_unless_one_request_has_more() -> None:
    waiting = queue()
    for size in (MAX_BATCH_BYTES // 2, MAX_BATCH_BYTES // 2, 1, 3 * MAX_BATCH_BYTES, 1):
        waiting.push(pending(size), 0)
    sizes = [[len(request.body) for request in waiting.take(Batching(64))] for _ in range(4)]
    half = MAX_BATCH_BYTES // 2
    assert sizes == [[half, half], [1], [3 * MAX_BATCH_BYTES], [1]]


def test_what_killed_a_worker_together_runs_alone_and_first() -> None:
    waiting = queue()
    later = pending()
    waiting.push(later, 5)
    back = [pending(alone=True) for _ in range(3)]
    waiting.push_back(back)
    assert [waiting.take(Batching(64)) for _ in range(4)] == [[back[0]], [back[1]], [back[2]], [later]]


def test_a_request_that_must_run_alone_ends_the_batch_before_it() -> None:
    waiting = queue()
    first, second, third = pending(), pending(alone=True), pending()
    for request in (first, second, third):
        waiting.push(request, 0)
    assert [waiting.take(Batching(64)) for _ in range(3)] == [[first], [second], [third]]


def test_without_a_delay_a_call_may_start_at_once() -> None:
    waiting = queue()
    assert waiting.ready_at(Batching(64)) == float("inf")
    waiting.push(pending(), 7.0)
    waiting.push(pending(), 8.0)
    assert waiting.ready_at(Batching(64)) == 7.0
    assert waiting.oldest_at == 7.0


def test_with_a_delay_it_starts_when_the_oldest_has_waited_or_the_batch_is_full() -> None:
    waiting = queue()
    batching = Batching(3, 0.5)
    waiting.push(pending(), 10.0)
    assert waiting.ready_at(batching) == 10.5
    waiting.push(pending(), 10.2)
    assert waiting.ready_at(batching) == 10.5
    waiting.push(pending(), 10.3)
    assert waiting.ready_at(batching) == 10.0
    waiting.clear()
    waiting.push_back([pending(alone=True)])
    assert waiting.ready_at(batching) == 0.0, "what runs alone waits for no company"


def test_what_waited_too_long_is_taken_out() -> None:
    waiting = queue()
    requests = [pending() for _ in range(4)]
    for number, request in enumerate(requests):
        waiting.push(request, float(number))
    assert waiting.expire(2.0) == requests[:2]
    assert waiting.clear() == requests[2:]
    assert (len(waiting), waiting.shared.waiting) == (0, 0)


class Queues(RuleBasedStateMachine):
    """Two queues with one bound, beside plain lists of what should be in them."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = ServerQueue(9)
        self.queues = [ModelQueue(name, 6, self.shared) for name in "ab"]
        self.expected: list[deque[Pending]] = [deque(), deque()]
        self.now = 0.0
        self.taken: list[tuple[int, list[Pending]]] = []

    @rule(which=st.integers(0, 1), size=st.integers(0, MAX_BATCH_BYTES), wait=st.floats(0, 5))
    def push(self, which: int, size: int, wait: float) -> None:
        self.now += wait
        request = pending(size)
        try:
            self.queues[which].push(request, self.now)
        except ServiceUnavailable:
            alive = [other for other in self.expected[which] if not other.caller.gone]
            total = sum(map(len, self.expected)) - len(self.expected[which]) + len(alive)
            assert len(alive) >= 6 or total >= 9 or sum(map(len, self.expected)) >= 9
            if len(self.expected[which]) >= 6:
                self.expected[which] = deque(alive)
            return
        if len(self.expected[which]) >= 6:
            self.expected[which] = deque(other for other in self.expected[which] if not other.caller.gone)
        self.expected[which].append(request)

    @rule(which=st.integers(0, 1), place=st.integers(0, 5))
    def leave(self, which: int, place: int) -> None:
        if place < len(self.expected[which]):
            self.expected[which][place].caller.gone = True  # type: ignore[misc]

    @rule(which=st.integers(0, 1), size=st.integers(1, 8))
    def take(self, which: int, size: int) -> None:
        batch = self.queues[which].take(Batching(size))
        assert len(batch) <= size
        assert not any(request.caller.gone for request in batch)
        assert len(batch) <= 1 or sum(len(request.body) for request in batch) <= MAX_BATCH_BYTES
        assert len(batch) <= 1 or not any(request.alone for request in batch)
        for request in batch:
            while (head := self.expected[which].popleft()) is not request:
                assert head.caller.gone, "it was skipped"
        while self.expected[which] and len(self.queues[which]) < len(self.expected[which]):
            assert self.expected[which].popleft().caller.gone
        if batch:
            self.taken.append((which, batch))

    @precondition(lambda self: self.taken)
    @rule()
    def give_back(self) -> None:
        which, batch = self.taken.pop()
        for request in batch:
            request.alone = True
        self.queues[which].push_back(batch)
        self.expected[which].extendleft(reversed(batch))

    @rule(which=st.integers(0, 1), age=st.floats(0, 10))
    def expire(self, which: int, age: float) -> None:
        for request in self.queues[which].expire(self.now - age):
            assert request is self.expected[which].popleft()
            assert request.enqueued_at < self.now - age

    @invariant()
    def lengths_are_those_expected(self) -> None:
        assert [len(each) for each in self.queues] == [len(each) for each in self.expected]
        assert self.shared.waiting == sum(map(len, self.expected))


Queues.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestQueues = Queues.TestCase


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 9), st.floats(0, 3))
def test_a_batch_never_waits_longer_than_its_delay(times: list[float], size: int, delay: float) -> None:
    waiting = queue(size=1000, server=1000)
    for time in sorted(times):
        waiting.push(pending(), time)
    ready = waiting.ready_at(Batching(size, delay))
    assert min(times) <= ready <= min(times) + delay
