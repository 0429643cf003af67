"""Waiting for a condition with a deadline, rather than sleeping for luck."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


async def until(holds: Callable[[], Awaitable[bool] | bool], seconds: float = 20.0) -> None:
    deadline = monotonic() + seconds
    while True:
        held = holds()
        if held is True or (not isinstance(held, bool) and await held):
            return
        assert monotonic() < deadline, f"not within {seconds} s: {getattr(holds, '__qualname__', holds)}"
        await asyncio.sleep(0.01)
