"""A pause that ends early when a connection or watch is closed."""

import asyncio
from contextlib import suppress


async def wait_until_closed(closed: asyncio.Event, seconds: float) -> bool:
    """Wait for the event for at most this time; return whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await closed.wait()
    return closed.is_set()
