"""The projections as an operator sees them: whether they are present, and rebuilding one in place."""

import asyncio
from collections.abc import Collection
from time import monotonic

import redis.asyncio as redis

from contracts.view_layout import View
from projector.__main__ import PROJECTIONS
from runtime.process.start_error import StartError

VIEWS = tuple(projection.view for projection in PROJECTIONS)


def find(name: str) -> View:
    """Return the view of a projection.

    Raises:
        StartError: there is no such projection.
    """
    known = {view.projection: view for view in VIEWS}
    if name not in known:
        raise StartError(f"there is no projection {name}; there is {', '.join(known)}")
    return known[name]


async def present(redis_url: str, views: Collection[View] = VIEWS, within: float = 60.0) -> None:
    """Wait until projections have caught up and can be queried.

    Raises:
        StartError: they have not within these seconds.
    """
    deadline = monotonic() + within
    async with redis.from_url(redis_url) as client:
        while await client.exists(*(view.ready for view in views)) < len(views):
            if monotonic() > deadline:
                names = ", ".join(view.projection for view in views)
                raise StartError(f"{names} not present after {within:.0f} s: does a projector run?")
            await asyncio.sleep(0.02)


async def rebuild(redis_url: str, view: View, within: float) -> float:
    """Have the projectors wipe a projection and fill it again; return the seconds that it took.

    Queries answer VIEW_REBUILDING meanwhile. What a projector still writes of the old filling is refused.

    Raises:
        StartError: it is not present again within these seconds; the projectors may still be at it.
    """
    began = monotonic()
    async with redis.from_url(redis_url) as client:
        await client.delete(view.ready, view.build)  # without the filling's name, another one is begun
    await present(redis_url, [view], within)
    return monotonic() - began
