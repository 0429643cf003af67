"""A lone item is flushed at once; items of one burst are flushed together."""

import asyncio

from runtime.batching import IDLE_TICKS, AdaptiveBatcher


class Batches:
    """A queue that is flushed in batches."""

    def __init__(self, max_wait: float = 60.0) -> None:
        self.queued = 0
        self.sizes: list[int] = []
        """The sizes of the flushed batches."""
        self._batcher = AdaptiveBatcher(lambda: self.queued, self._flush, max_wait)

    def add(self) -> None:
        self.queued += 1
        if self.queued == 1:
            self._batcher.begin()

    def _flush(self) -> None:
        self.sizes.append(self.queued)
        self.queued = 0


async def run_ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_item_is_flushed_in_the_next_iteration() -> None:
    batches = Batches()
    batches.add()
    await run_ticks(2)
    assert batches.sizes == [1]


async def test_items_of_one_iteration_are_flushed_together() -> None:
    batches = Batches()
    for _ in range(3):
        batches.add()
    await run_ticks(2)
    assert batches.sizes == [3]


async def test_after_a_burst_a_batch_waits_while_more_items_arrive() -> None:
    batches = Batches()
    for _ in range(2):
        batches.add()
    await run_ticks(2)
    for _ in range(5):
        batches.add()
        await run_ticks(IDLE_TICKS // 2)
    assert batches.sizes == [2]
    await run_ticks(2 * IDLE_TICKS)
    assert batches.sizes == [2, 5]


async def test_after_a_lone_item_the_next_batch_does_not_wait() -> None:
    batches = Batches()
    for _ in range(2):
        batches.add()
    await run_ticks(2)
    batches.add()
    await run_ticks(2 * IDLE_TICKS)
    batches.add()
    await run_ticks(2)
    assert batches.sizes == [2, 1, 1]


async def test_a_batch_is_flushed_after_its_maximum_wait() -> None:
    batches = Batches(max_wait=0.0)
    for _ in range(2):
        batches.add()
    await run_ticks(2)
    for _ in range(3 * IDLE_TICKS):
        batches.add()
        await run_ticks(1)
    assert len(batches.sizes) > 2
