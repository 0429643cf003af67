"""Publishes what each index of this process contains, for `diptych verify`."""

import asyncio
from time import monotonic
from typing import NoReturn

from contracts.search_digests import LIFETIME, encode, make_key
from query_server.redis_client import RedisClient
from query_server.search.follower import IndexFollower
from runtime.grpc.rpc_error import RpcError
from runtime.process_reports.report import INSTANCE

INTERVAL = 1.0
"""Seconds between two looks at an index."""
RENEWAL = LIFETIME / 3
"""Seconds after which the digest of an index that has not changed is published again."""


async def publish_digests(follower: IndexFollower, redis: RedisClient) -> NoReturn:
    """Publish the digest of an index after changes, and now and then, while it is complete."""
    key = make_key(follower.index.definition.name, INSTANCE)
    commits, published_at = -1, 0.0
    while True:
        is_due = follower.commits != commits or monotonic() - published_at >= RENEWAL
        if is_due and follower.has_served.is_set():
            commits, published_at = follower.commits, monotonic()
            digest = await follower.search(follower.index.compute_digest)
            try:
                await redis.call("SET", key, encode(digest), "PX", int(LIFETIME * 1000))
            except RpcError:  # Redis is away
                commits = -1
        await asyncio.sleep(INTERVAL)
