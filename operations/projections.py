"""The readiness of projections, and rebuilding one in place."""

import asyncio
from collections.abc import Collection
from time import monotonic

import redis.asyncio as redis

from contracts.view_layout import View
from projector.__main__ import PROJECTIONS
from runtime.process.start_error import StartError

VIEWS = tuple(projection.view for projection in PROJECTIONS)


def find_view(name: str) -> View:
    """Return the view of a projection.

    Raises:
        StartError: there is no such projection.
    """
    views = {view.projection: view for view in VIEWS}
    if name not in views:
        raise StartError(f"there is no projection {name}; there is {', '.join(views)}")
    return views[name]


async def wait_until_ready(redis_url: str, views: Collection[View] = VIEWS, within: float = 60.0) -> None:
    """Wait until projections have caught up and can be queried.

    Raises:
        StartError: they are not ready within these seconds.
    """
    deadline = monotonic() + within
    async with redis.from_url(redis_url) as client:
        while await client.exists(*(view.ready for view in views)) < len(views):
            if monotonic() > deadline:
                names = ", ".join(view.projection for view in views)
                raise StartError(f"{names} not ready after {within:.0f} s: does a projector run?")
            await asyncio.sleep(0.02)


async def rebuild(redis_url: str, view: View, within: float) -> float:
    """Let the projectors begin another build of a projection; return the seconds until it is ready.

    Queries answer VIEW_REBUILDING meanwhile. Writes of the previous build are refused.

    Raises:
        StartError: it is not ready again within these seconds; the projectors continue.
    """
    started = monotonic()
    async with redis.from_url(redis_url) as client:
        await client.delete(view.ready, view.build)  # projectors begin another build when the name is missing
    await wait_until_ready(redis_url, [view], within)
    return monotonic() - started
