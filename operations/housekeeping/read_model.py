"""The projections in Redis, as housekeeping finds them."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from contracts.generations import read_all
from projector.ports import BuildSuperseded
from projector.projection import Projection
from projector.redis_archive import RedisArchive
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.redis.pool import open_client

TIMEOUT = 5.0
"""Seconds for each answer of Redis."""
MAX_PAUSE = 0.25
"""Seconds between two batches, at most."""

Work = Callable[[Projection[Any], RedisArchive], Awaitable[int]]
"""Archives or trims one projection; returns the number of items."""


async def work_on_projections(settings: Settings, work: Work) -> tuple[int, str, int]:
    """Do some work on each generation of each projection of the chosen contexts that is ready.

    Returns:
        The number of items; a note that names the projections without a result; the number of archived views.
    """
    projections = load_parts(choose_contexts(settings), "projections", "PROJECTIONS", Projection)
    count, archived, notes = 0, 0, list[str]()
    async with open_client(settings.redis_url, socket_timeout=TIMEOUT) as redis:
        generations = [
            projection.at(view.generation)
            for projection in projections
            for view in await read_all(redis, projection.view)
        ]
        for projection in generations:
            archive = RedisArchive(redis, projection.view)
            try:
                if await archive.read_build() is None or not await archive.is_ready():
                    raise BuildSuperseded
                count += await work(projection, archive)
                archived += await archive.count_archived()
            except BuildSuperseded:
                notes.append(f"not {projection.view.projection}, which is being built")
            except (
                ResponseError
            ) as error:  # a key of another type, for instance, which is that projection's fault
                notes.append(f"not all of {projection.view.projection}: {error}")
    return count, ", ".join(notes), archived


class Pace:
    """Pauses after each batch for as long as the batch took, so that others have half of Redis's time."""

    def __init__(self) -> None:
        self._began = monotonic()

    async def pause(self) -> None:
        await asyncio.sleep(min(MAX_PAUSE, monotonic() - self._began))
        self._began = monotonic()
