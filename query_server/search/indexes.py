"""Opens the indexes of a process, and closes them at its end."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.read_models import ServingReadModel
from query_server.redis_client import RedisClient
from query_server.search.definition import IndexDefinition
from query_server.search.digests import publish_digests
from query_server.search.folder import IndexFolder
from query_server.search.follower import IndexFollower
from query_server.search.index import SearchIndex
from runtime.grpc.waits import Waits
from runtime.process.lifecycle import Lifecycle, cancel_and_wait


@asynccontextmanager
async def open_index(
    definition: IndexDefinition,
    models: Mapping[View, ServingReadModel],
    notifications: ChangeNotifications,
    waits: Waits,
    redis: RedisClient,
    lifecycle: Lifecycle,
) -> AsyncIterator[IndexFollower]:
    """Yield the follower of an index, which runs beside `main` and is saved in the end."""
    with IndexFolder(lifecycle.settings.search_folder, definition.name) as folder:
        index = SearchIndex(definition, folder)
        async with IndexFollower(index, models, notifications, waits) as follower:
            lifecycle.spawn(follower.run(), "search index")
            publishing = lifecycle.spawn(publish_digests(follower, redis), "digests of search indexes")
            try:
                yield follower
            finally:
                await cancel_and_wait(publishing)
