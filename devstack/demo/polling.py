"""Waiting for what the demo's sagas bring about."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

TIMEOUT = 30.0
"""Seconds until a value must be the expected one."""


async def poll(read: Callable[[], Awaitable[Any]], expected: Any) -> Any:
    """Return a value once it is the expected one, or the last value after TIMEOUT."""
    deadline = monotonic() + TIMEOUT
    while (value := await read()) != expected and monotonic() < deadline:
        await asyncio.sleep(0.05)
    return value
