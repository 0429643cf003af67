"""Partition leases in Redis, which divide the partitions among the projectors.

How it works. Projectors that run the same contexts form a group, which divides all partitions among its
members. Every RENEWAL_INTERVAL a projector renews its membership and its leases in one script, which
also computes its share: all partitions divided by the living members, rounded up. It takes free partitions up
to its share and releases those above it. A killed projector loses its leases after LEASE seconds; a new one
gets its share within one or two intervals, as soon as the others have finished their batches.

Leases only avoid duplicate work. Two projectors may work on one partition for a while, for instance after a
freeze; the writes compare build, checkpoints and versions, so the views stay correct.

If a lease exceeds the share while a session has pinned it, `partitions` omits it at once. The session then
ends after its batch and unpins the lease, and the next renewal releases it.
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
from runtime.telemetry.metrics import LEASES_LOST

LEASE = 5.0
"""Seconds after which a lease or a membership ends unless it is renewed."""
RENEWAL_INTERVAL = 1.0
"""Seconds between renewals."""

GROUPS = "projector_groups"
"""The key of the sorted set of groups, scored by the time (ms since 1970) at which their memberships end."""

# Returns the share and the leased partitions. Membership depends on the clock of Redis alone.
RENEW = """
local members, groups = KEYS[1], table.remove(KEYS, 2)
local me, lease, group = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for key, name in pairs({[members] = me, [groups] = group}) do
  if redis.call('TYPE', key).ok ~= 'zset' then redis.call('UNLINK', key) end
  redis.call('ZADD', key, now + lease, name)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now)
end
local share = math.ceil((#KEYS - 1) / redis.call('ZCARD', members))
local mine, free = {}, {}
for i = 2, #KEYS do
  local holder = redis.call('TYPE', KEYS[i]).ok == 'string' and redis.call('GET', KEYS[i])
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

# Deletes the leases that still belong to this member: an expired one may have another holder.
RELEASE = """
for i = 1, #KEYS do
  if redis.pcall('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
"""

log = logs.get_logger(__name__)


class RedisLeases:
    """The leases of one process, shared by all its projections; `keep` renews them.

    Args:
        redis: the connection.
        group: the name of the projector's group.
        can_work: returns whether this process can work now; while it cannot, it releases its partitions.
    """

    def __init__(self, redis: Redis, group: str, can_work: Callable[[], bool] = lambda: True) -> None:
        self._redis = redis
        self._group = group
        self._members = f"projectors:{group}"
        self._can_work = can_work
        self._left = False
        self._lock = (
            asyncio.Lock()
        )  # `leave` waits for a renewal in progress, which could acquire leases again
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._partitions: frozenset[int] = frozenset()
        self._pins: Counter[int] = Counter()
        self._renew_script = redis.register_script(RENEW)
        self._release_script = redis.register_script(RELEASE)

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that are leased to this process and within its share."""
        return self._partitions

    @contextmanager
    def pin(self) -> Iterator[frozenset[int]]:
        """Pin `partitions`: no other process gets their leases while the context is open."""
        partitions = self._partitions
        self._pins.update(partitions)
        try:
            yield partitions
        finally:
            self._pins.subtract(partitions)

    async def keep(self) -> None:
        """Renew every RENEWAL_INTERVAL until `leave`; errors of Redis are logged and retried."""
        failures = logs.RepeatedErrors(log, "Lease renewal failed")
        while not self._left:
            try:
                async with self._lock:
                    if not self._left:
                        await (self.renew() if self._can_work() else self._release_all())
                failures.reset()
            except (RedisError, OSError) as error:
                failures.report(error)
            await asyncio.sleep(RENEWAL_INTERVAL)

    async def renew(self) -> None:
        """Renew the leases, take free partitions up to the share, and release unpinned ones above it."""
        keys = [self._members, GROUPS, *(self._key(partition) for partition in range(streams.PARTITIONS))]
        share, leased_partitions = await self._renew_script(
            keys=keys, args=[self._me, int(LEASE * 1000), self._group]
        )
        # Partitions of the previous renewal come first, so that as few as possible change their holder.
        partitions = frozenset(
            sorted(leased_partitions, key=lambda partition: (partition not in self._partitions, partition))[
                :share
            ]
        )
        if expired := self._partitions.difference(leased_partitions):
            LEASES_LOST.add(len(expired))
        if partitions != self._partitions:
            log.info("Partitions changed", partitions=sorted(partitions))
            self._partitions = partitions
        await self._release(frozenset(leased_partitions) - partitions)

    async def leave(self) -> None:
        """Release all leases and renew no more. Errors of Redis are ignored: the leases expire anyway."""
        self._left = True
        async with self._lock:
            with suppress(RedisError, OSError):
                await self._release_all()

    async def _release_all(self) -> None:
        """End the membership and release everything that is not pinned."""
        self._partitions = frozenset()
        await self._redis.zrem(self._members, self._me)
        await self._release(frozenset(range(streams.PARTITIONS)))

    async def _release(self, partitions: frozenset[int]) -> None:
        keys = [self._key(partition) for partition in partitions if self._pins[partition] <= 0]
        if keys:
            await self._release_script(keys=keys, args=[self._me])

    def _key(self, partition: int) -> str:
        return lease_key(self._group, partition)


def lease_key(group: str, partition: int) -> str:
    """Return the key of the name of the projector that holds a partition."""
    return f"lease:{group}:{partition}"
