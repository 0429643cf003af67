"""Waiting for a condition, with a deadline; no test sleeps for a guessed time."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


async def until(holds: Callable[[], Awaitable[bool] | bool], seconds: float = 20.0) -> None:
    deadline = monotonic() + seconds
    while True:
        result = holds()
        if result is True or (not isinstance(result, bool) and await result):
            return
        assert monotonic() < deadline, f"not within {seconds} s: {getattr(holds, '__qualname__', holds)}"
        await asyncio.sleep(0.01)
