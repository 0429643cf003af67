"""An upper bound on the age of a projection, sent with every response in trailing metadata."""

import asyncio
from time import time

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from query_server.redis_client import RedisClient
from runtime.grpc.metadata import STALENESS
from runtime.grpc.rpc_error import RpcError

INTERVAL = 0.5
"""Seconds between two samples."""


class Staleness:
    """Samples the time up to which a projection includes all published events.

    The bound grows with the age of the sample and is never too small.
    """

    def __init__(self, redis: RedisClient, view: View) -> None:
        self._redis = redis
        self._view = view
        self._as_of: int | None = None

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(INTERVAL)

    async def sample(self) -> None:
        """Take one sample; the bound is unknown if Redis fails or a partition has not reported."""
        try:
            partitions = (await self._redis.call("HGETALL", self._view.as_of))[1::2]
            self._as_of = min(map(int, partitions)) if len(partitions) == PARTITIONS else None
        except (RpcError, ValueError):
            self._as_of = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata of a response that is sent now; empty if the bound is unknown."""
        if self._as_of is None:
            return ()
        return ((STALENESS, str(max(0, int(time() * 1000) - self._as_of))),)
