"""The catalogue's searches without a projector: its views in Redis, and query servers with an index each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from diptych.catalogue.v1.types_pb2 import CategoryTree, Product
from diptych.inventory.v1.types_pb2 import Stock
from redis.asyncio import Redis

from contracts.view_layout import View, index_member
from query_server.change_notifications import ChangeNotifications
from query_server.contexts import catalogue
from query_server.contexts.catalogue.index import INDEX, PRODUCTS, STOCKS
from query_server.contexts.catalogue.tree import TREE_ID, TREES
from query_server.redis_client import RedisClient
from query_server.search.folder import IndexFolder
from query_server.search.follower import IndexFollower
from query_server.search.index import SearchIndex
from runtime.process.lifecycle import cancel_and_wait
from runtime.redis.address import RedisAddress
from tests.support.harness.freshness import make_serving, make_waits
from tests.support.harness.query_calls import QueryCalls
from tests.support.harness.read_model import INCARNATION, ReadModel
from tests.support.harness.waiting import until

VIEWS = (PRODUCTS, STOCKS, TREES)


class StoredShop:
    """Writes the views of one generation as projectors do."""

    def __init__(self, redis: Redis, generation: str = "") -> None:
        self.redis = redis
        self.views = {view.message: view.at(generation) if generation else view for view in VIEWS}

    async def begin_build(self, name: str = "1", incarnation: str = INCARNATION) -> None:
        for view in self.views.values():
            await self.redis.mset({view.build: f"{incarnation}/{name}", view.ready: incarnation})

    async def put(self, *messages: Any, notify: bool = True) -> None:
        """Write products, stocks or trees of one type."""
        view = self.views[type(messages[0])]
        ids = [_get_id(message) for message in messages]
        async with self.redis.pipeline(transaction=False) as pipe:
            for view_id, message in zip(ids, messages, strict=True):
                fields: dict[Any, Any] = {"data": message.SerializeToString(), "version": message.version}
                pipe.hset(view.key(view_id), mapping=fields)
                pipe.zadd(view.index("all"), {index_member(_get_time(message), view_id): 0})
            await pipe.execute()
        if notify:
            await self.redis.publish(view.change_channel, msgspec.msgpack.encode([ids, []]))

    async def clear(self, view: View) -> None:
        """Delete all views of a projection, as for a rebuild in place."""
        view = self.views[view.message]
        keys = [key async for key in self.redis.scan_iter(f"*:{view.projection}:{view.generation}:*")]
        await self.redis.delete(view.ready, view.build, *keys)


def _get_id(message: Any) -> str:
    match message:
        case Product():
            return message.sku
        case Stock():
            return message.stock_id
        case CategoryTree():
            return TREE_ID
    raise TypeError(message)


def _get_time(message: Any) -> int:
    return message.draft_time.ToMicroseconds() if isinstance(message, Product) else 0


@dataclass
class SearchServer:
    """The part of a query server that answers searches."""

    follower: IndexFollower
    calls: QueryCalls
    reader: RedisClient

    async def search(self, query: str, **request: Any) -> Any:
        return await self.calls.call("SearchProducts", query=query, **request)

    async def find(self, query: str, **request: Any) -> list[str]:
        """Return the skus of a page."""
        return [product.sku for product in (await self.search(query, **request)).products]

    async def find_all(self, query: str, page_size: int = 3, **request: Any) -> list[str]:
        """Return the skus of all pages."""
        skus, token = list[str](), ""
        while True:
            page = await self.search(query, page_size=page_size, page_token=token, **request)
            skus += [product.sku for product in page.products]
            if not (token := page.next_page_token):
                return skus

    async def until_found(self, query: str, skus: list[str], **request: Any) -> None:
        """Wait until a search finds these products, in any order."""

        async def is_found() -> bool:
            return sorted(await self.find(query, **request)) == sorted(skus)

        await until(is_found)


@asynccontextmanager
async def run_search_server(
    redis_url: str, folder: Path | None = None, max_wait: float = 5.0, *, ready: bool = True
) -> AsyncIterator[SearchServer]:
    """Yield a server whose index has been filled.

    Args:
        redis_url: with the views.
        folder: of the index; None for a temporary one.
        max_wait: seconds that a search waits for its token.
        ready: whether to wait until the index is filled.
    """
    address, stopping = RedisAddress(redis_url), asyncio.Event()
    async with RedisClient(address) as reader, Redis.from_url(redis_url) as redis:
        notifications = ChangeNotifications(address, reader, VIEWS)
        models = {view: make_serving(view, reader, notifications, max_wait) for view in VIEWS}
        model = ReadModel(redis, reader, None)  # type: ignore[arg-type] # its projections are not used
        with IndexFolder(str(folder or ""), INDEX.name) as index_folder:
            index = SearchIndex(INDEX, index_folder)
            async with IndexFollower(index, models, notifications, make_waits(max_wait)) as follower:
                tasks = [
                    asyncio.create_task(notifications.run(stopping)),
                    asyncio.create_task(follower.run()),
                ]
                calls = QueryCalls(
                    model, catalogue.CONTEXT, notifications, max_wait, {INDEX.name: follower}, models
                )
                try:
                    if ready:
                        await asyncio.wait_for(follower.has_served.wait(), 20)
                    yield SearchServer(follower, calls, reader)
                finally:
                    stopping.set()
                    await cancel_and_wait(*tasks)
