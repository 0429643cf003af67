"""Waiting for whichever of several events is set first."""

import asyncio


async def wait_for_any(*events: asyncio.Event, timeout: float) -> None:  # noqa: ASYNC109 - no error when it ends
    """Wait until one of the events is set, but no longer than `timeout` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
