"""What is alone leaves at once; what comes together under load leaves together."""

import asyncio

from runtime.batching import IDLE_TICKS, AdaptiveBatcher


class Batches:
    """A queue that leaves in batches."""

    def __init__(self, max_wait: float = 60.0) -> None:
        self.waiting = 0
        self.left: list[int] = []
        self._gathering = AdaptiveBatcher(lambda: self.waiting, self._leave, max_wait)

    def add(self) -> None:
        self.waiting += 1
        if self.waiting == 1:
            self._gathering.begin()

    def _leave(self) -> None:
        self.left.append(self.waiting)
        self.waiting = 0


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_leaves_in_the_next_turn() -> None:
    batches = Batches()
    batches.add()
    await turns(2)
    assert batches.left == [1]


async def test_what_comes_in_one_turn_leaves_together() -> None:
    batches = Batches()
    for _ in range(3):
        batches.add()
    await turns(2)
    assert batches.left == [3]


async def test_after_company_one_waits_as_long_as_more_comes() -> None:
    batches = Batches()
    for _ in range(2):
        batches.add()
    await turns(2)
    for _ in range(5):
        batches.add()
        await turns(IDLE_TICKS // 2)
    assert batches.left == [2]
    await turns(2 * IDLE_TICKS)
    assert batches.left == [2, 5]


async def test_one_that_was_alone_keeps_the_next_from_waiting() -> None:
    batches = Batches()
    for _ in range(2):
        batches.add()
    await turns(2)
    batches.add()
    await turns(2 * IDLE_TICKS)
    batches.add()
    await turns(2)
    assert batches.left == [2, 1, 1]


async def test_a_batch_leaves_though_more_keeps_coming() -> None:
    batches = Batches(max_wait=0.0)
    for _ in range(2):
        batches.add()
    await turns(2)
    for _ in range(3 * IDLE_TICKS):
        batches.add()
        await turns(1)
    assert len(batches.left) > 2
