"""The readiness of projections, and rebuilding one in place."""

import asyncio
from collections.abc import Collection
from time import monotonic

import redis.asyncio as redis

from contracts.view_layout import View
from projector.projection import Projection
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError


def list_views(settings: Settings) -> list[View]:
    """Return the views of the chosen contexts.

    Raises:
        StartError: a context is unknown or invalid.
    """
    projections = load_parts(choose_contexts(settings), "projections", "PROJECTIONS", Projection)
    return [projection.view for projection in projections]


def find_view(settings: Settings, name: str) -> View:
    """Return the view of a projection.

    Raises:
        StartError: there is no such projection.
    """
    views = {view.projection: view for view in list_views(settings)}
    if name not in views:
        raise StartError(f"there is no projection {name}; there is {', '.join(views)}")
    return views[name]


async def wait_until_ready(
    settings: Settings, views: Collection[View] | None = None, within: float = 60.0
) -> None:
    """Wait until the views can be queried; None for all of the chosen contexts.

    Raises:
        StartError: they are not ready within these seconds.
    """
    views = list_views(settings) if views is None else views
    deadline = monotonic() + within
    async with redis.from_url(settings.redis_url) as client:
        while await client.exists(*(view.ready for view in views)) < len(views):
            if monotonic() > deadline:
                names = ", ".join(view.projection for view in views)
                raise StartError(f"{names} not ready after {within:.0f} s: does a projector run?")
            await asyncio.sleep(0.02)


async def rebuild(settings: Settings, view: View, within: float) -> float:
    """Let the projectors begin another build of a projection; return the seconds until it is ready.

    Queries answer VIEW_REBUILDING meanwhile. Writes of the previous build are refused.

    Raises:
        StartError: it is not ready again within these seconds; the projectors continue.
    """
    started = monotonic()
    async with redis.from_url(settings.redis_url) as client:
        await client.delete(view.ready, view.build)  # projectors begin another build when the name is missing
    await wait_until_ready(settings, [view], within)
    return monotonic() - started
