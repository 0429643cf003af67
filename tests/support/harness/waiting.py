"""Waiting for a condition, with a deadline; no test sleeps for a guessed time."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[object] | bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds; one that does not return in time fails like one that does not hold."""
    try:
        async with asyncio.timeout(seconds) as limit:
            while not await _check(holds):  # noqa: ASYNC110 - the condition is the state of a server
                await asyncio.sleep(0.01)
    except TimeoutError:
        assert not limit.expired(), f"not within {seconds} s: {getattr(holds, '__qualname__', holds)}"
        raise


async def _check(holds: Callable[[], Awaitable[object] | bool]) -> bool:
    result = holds()
    return result if isinstance(result, bool) else bool(await result)
