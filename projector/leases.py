"""Partitions shared among projectors: leases in Redis that save work. Correctness never rests on them.

A projector that is killed loses its leases within LEASE; one that joins is given a share as soon as the
others have finished their batches, which takes them a TICK or two.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from contracts import streams
from runtime.process import logs

MEMBERS = "projectors"
LEASE = 5.0
"""Seconds that a lease or a membership lasts without being renewed."""
TICK = 1.0
"""Seconds between renewals."""

# Returns what this projector holds, and how many it may hold. Redis's clock alone decides who is alive.
RENEW = """
local members = KEYS[1]
local me, lease = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', members, now + lease, me)
redis.call('ZREMRANGEBYSCORE', members, '-inf', '(' .. now)
local share = math.ceil((#KEYS - 1) / redis.call('ZCARD', members))
local mine, free = {}, {}
for i = 2, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder == me then
    redis.call('PEXPIRE', KEYS[i], lease)
    mine[#mine + 1] = i - 2
  elseif not holder then
    free[#free + 1] = i - 2
  end
end
for _, partition in ipairs(free) do
  if #mine >= share then break end
  redis.call('SET', KEYS[partition + 2], me, 'PX', lease)
  mine[#mine + 1] = partition
end
return {share, mine}
"""

RELEASE = """
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
"""

log = logs.get_logger(__name__)


class RedisLeases:
    """The leases of one process, for all its projections; `keep` renews them and sees to fair shares.

    Args:
        redis: where the leases are.
        able: whether this process could do anything with partitions now; while not, others get them.
    """

    def __init__(self, redis: Redis, able: Callable[[], bool] = lambda: True) -> None:
        self._redis = redis
        self._able = able
        self._left = False
        self._lock = asyncio.Lock()  # leaving comes after a renewal under way, not beside it
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._held: frozenset[int] = frozenset()
        self._pins: Counter[int] = Counter()
        self._renew = redis.register_script(RENEW)
        self._release = redis.register_script(RELEASE)

    @property
    def held(self) -> frozenset[int]:
        """The partitions to work on, as of now."""
        return self._held

    @contextmanager
    def pinned(self) -> Iterator[frozenset[int]]:
        """Return the partitions held now; none of them is given to another process within the context."""
        partitions = self._held
        self._pins.update(partitions)
        try:
            yield partitions
        finally:
            self._pins.subtract(partitions)

    async def keep(self) -> None:
        """Hold a fair share until `leave`; an error of Redis means to try again."""
        while not self._left:
            try:
                async with self._lock:
                    if not self._left:
                        await (self.renew() if self._able() else self._let_go())
            except (RedisError, OSError) as error:
                log.warning("Leases cannot be renewed", error=str(error))
            await asyncio.sleep(TICK)

    async def renew(self) -> None:
        """Renew what is held, take what is free, give away what exceeds the share and is not pinned."""
        keys = [MEMBERS, *(_key(partition) for partition in range(streams.PARTITIONS))]
        share, mine = await self._renew(keys=keys, args=[self._me, int(LEASE * 1000)])
        kept = frozenset(sorted(mine, key=lambda partition: (partition not in self._held, partition))[:share])
        if kept != self._held:
            log.info("Partitions changed", partitions=sorted(kept))
            self._held = kept
        await self._give(frozenset(mine) - kept)

    async def leave(self) -> None:
        """Release everything at once, and take nothing again; does not raise where Redis is away."""
        self._left = True
        async with self._lock:
            with suppress(RedisError, OSError):
                await self._let_go()

    async def _let_go(self) -> None:
        """Release everything that is not pinned, and be no member."""
        self._held = frozenset()
        await self._redis.zrem(MEMBERS, self._me)
        await self._give(frozenset(range(streams.PARTITIONS)))

    async def _give(self, partitions: frozenset[int]) -> None:
        free = [_key(partition) for partition in partitions if self._pins[partition] <= 0]
        if free:
            await self._release(keys=free, args=[self._me])


def _key(partition: int) -> str:
    return f"lease:{partition}"
