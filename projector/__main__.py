"""The projector process: its projections, and how its parts are put together."""

import asyncio

from redis.asyncio import Redis

from projector.event_feed import JetStreamEventFeed
from projector.leases import RedisLeases
from projector.observer import create_observer
from projector.projections import banking, inventory, ordering
from projector.redis_connection import check_eviction_policy, connect, is_reachable
from projector.redis_store import RedisStore
from projector.runner import Runner
from runtime import jetstream
from runtime.grpc import server
from runtime.jetstream import Connection
from runtime.process.lifecycle import Lifecycle, read_settings, run_process

PROJECTIONS = (*ordering.PROJECTIONS, *inventory.PROJECTIONS, *banking.PROJECTIONS)


async def main(lifecycle: Lifecycle) -> None:
    """Run the projections and serve health checks until the process stops."""
    async with (
        connect(lifecycle.settings.redis_url) as redis,
        await jetstream.connect(lifecycle.settings.nats_url, "projector") as nats,
    ):

        async def probe() -> bool:
            return nats.connected and await is_reachable(redis)

        health = server.build(lifecycle.settings, address=lifecycle.settings.projector_address, probe=probe)
        await asyncio.gather(health.serve(lifecycle), run_projections(lifecycle, redis, nats))


async def run_projections(lifecycle: Lifecycle, redis: Redis, nats: Connection) -> None:
    """Run every projection on this process's share of the partitions, until the process stops."""
    await check_eviction_policy(redis, lifecycle)
    leases = RedisLeases(redis, can_work=lambda: nats.connected)
    lifecycle.spawn(leases.keep(), "leases")
    runners = [
        Runner(
            projection,
            RedisStore(redis, projection.view),
            JetStreamEventFeed(nats, projection.view.source_streams),
            leases,
            observe=create_observer(projection.view),
        )
        for projection in PROJECTIONS
    ]
    await asyncio.gather(*(runner.run(lifecycle.stopping) for runner in runners))
    await leases.leave()


if __name__ == "__main__":
    run_process(main, "projector", read_settings())
