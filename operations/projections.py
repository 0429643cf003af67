"""The readiness of projections, and rebuilding one in place."""

import asyncio
from collections.abc import Collection
from time import monotonic

import redis.asyncio as redis

from contracts import streams
from contracts.generations import read_serving
from contracts.view_layout import View, parse_checkpoint
from operations.progress import Report
from projector.projection import Projection
from runtime import jetstream
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.lifecycle import cancel_and_wait
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.redis.pool import open_client


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
    async with open_client(settings.redis_url) as client:
        while await client.exists(*(view.ready for view in await read_serving(client, list(views)))) < len(
            views
        ):
            if monotonic() > deadline:
                names = ", ".join(view.projection for view in views)
                raise StartError(f"{names} not ready after {within:.0f} s: does a projector run?")
            await asyncio.sleep(0.02)


async def rebuild(
    settings: Settings, view: View, within: float, observe: Report = lambda _done, _total: None
) -> float:
    """Let projectors build the generation that serves again; return the seconds until it is ready.

    Queries answer VIEW_REBUILDING meanwhile. Writes of the previous build are refused.

    Args:
        settings: for Redis and NATS.
        view: of the projection.
        within: seconds until it has to be ready.
        observe: called with the messages of the stream that the build has read, and all of them.

    Raises:
        StartError: it is not ready again within these seconds; the projectors continue.
    """
    started = monotonic()
    async with open_client(settings.redis_url) as client:
        (view,) = await read_serving(client, [view])
        await client.delete(view.ready, view.build)  # projectors begin another build when the name is missing
        observing = asyncio.create_task(_observe_build(settings, client, view, observe))
        try:
            await wait_until_ready(settings, [view], within)
        finally:
            await cancel_and_wait(observing)
    return monotonic() - started


async def _observe_build(settings: Settings, client: redis.Redis, view: View, observe: Report) -> None:
    """Report how far a build is, until this is cancelled or a server does not answer."""
    connection = await jetstream.connect(settings.nats_url, "operations")
    try:
        while True:
            stream = await jetstream.read_stream_identity(connection.js)
            checkpoints = [parse_checkpoint(each) for each in await client.hvals(view.checkpoints)]
            if stream is not None and len(checkpoints) == streams.PARTITIONS:
                read = min(sequence if epoch == stream.epoch else 0 for epoch, sequence in checkpoints)
                observe(read, stream.last_sequence)
            await asyncio.sleep(1.0)
    finally:
        await connection.close()
