"""Rebuilding a projection in place: its views are wiped and filled again from the stream, by the projectors."""

import asyncio
from collections.abc import Iterable
from time import monotonic

import redis.asyncio as redis

from operations.errors import Failed
from projector.__main__ import PROJECTIONS
from runtime.views import View

WITHIN = 3600.0
"""Seconds that a rebuild may take before its command gives up waiting; the projectors do not."""


def views() -> Iterable[View]:
    """Return the views of all projections."""
    return [projection.view for projection in PROJECTIONS]


def find(name: str) -> View:
    """Return the view of a projection.

    Raises:
        Failed: there is no such projection.
    """
    known = {view.projection: view for view in views()}
    if name not in known:
        raise Failed(f"there is no projection {name}; there are {', '.join(known)}")
    return known[name]


async def rebuild(redis_url: str, view: View) -> float:
    """Have a projection rebuilt; return the seconds it took until it was present again.

    Queries answer VIEW_REBUILDING meanwhile. What a projector still writes of the old filling is refused.

    Raises:
        Failed: it is not present again in time; is a projector running?
    """
    began = monotonic()
    async with redis.from_url(redis_url) as client:
        await client.delete(view.present, view.fill)  # without its name, a filling is begun anew
        while not await client.exists(view.present):
            if monotonic() - began > WITHIN:
                raise Failed(f"{view.projection} is not present after {WITHIN:.0f} s; does a projector run?")
            await asyncio.sleep(0.05)
    return monotonic() - began
