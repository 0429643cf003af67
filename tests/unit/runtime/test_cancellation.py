"""Tasks end whatever swallows a cancellation, and whoever else is cancelled meanwhile."""

import asyncio
from contextlib import suppress

import pytest

from runtime.process.lifecycle import cancel_and_wait


async def swallow(cancellations: int) -> None:
    """Swallow this many cancellations, then end at the next one."""
    for _ in range(cancellations):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    task = asyncio.create_task(swallow(1))
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait(task), 10)
    assert task.cancelled()


async def test_a_cancelled_caller_ends_after_its_tasks() -> None:
    task = asyncio.create_task(swallow(1))
    await asyncio.sleep(0)
    caller = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, 10)
    assert task.cancelled()
