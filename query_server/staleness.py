"""An upper bound on the age of a projection, sent with every response in trailing metadata."""

import asyncio
from time import monotonic

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from query_server.redis_client import RedisClient
from runtime.grpc.metadata import STALENESS
from runtime.grpc.rpc_error import RpcError

INTERVAL = 0.5
"""Seconds between two samples."""


class Staleness:
    """Samples the time up to which a projection includes all published events, and Redis's time.

    The bound grows with the age of the sample and is never too small. Projectors store that time by the same
    clock of Redis, so the clocks of machines do not matter.
    """

    def __init__(self, redis: RedisClient, view: View) -> None:
        self._redis = redis
        self._view = view
        self._stale_since: float | None = None
        """On the monotonic clock, in seconds."""

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(INTERVAL)

    async def sample(self) -> None:
        """Take one sample; the bound is unknown if Redis fails or a partition has not reported."""
        try:
            entries, (seconds, microseconds) = await self._redis.pipeline(
                ("HGETALL", self._view.as_of), ("TIME",)
            )
            read_at, now = monotonic(), int(seconds) + int(microseconds) / 1e6
            as_of = min(map(int, entries[1::2])) / 1000 if len(entries) == 2 * PARTITIONS else None
            self._stale_since = None if as_of is None else read_at - (now - as_of)
        except (RpcError, ValueError):
            self._stale_since = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata of a response that is sent now; empty if the bound is unknown."""
        if self._stale_since is None:
            return ()
        return ((STALENESS, str(max(0, int((monotonic() - self._stale_since) * 1000)))),)
