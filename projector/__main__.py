"""The projector process: its projections, and how its parts are put together."""

import asyncio

from redis.asyncio import Redis

from projector import observer
from projector.feed import JetStreamFeed
from projector.leases import RedisLeases
from projector.projections import banking, inventory, ordering
from projector.redis_connection import answers, connect, never_evicts
from projector.redis_store import RedisStore
from projector.runner import Runner
from runtime import jetstream
from runtime.grpc import server
from runtime.jetstream import Connection
from runtime.process.lifecycle import Lifecycle, read_settings, run_process

PROJECTIONS = (*ordering.PROJECTIONS, *inventory.PROJECTIONS, *banking.PROJECTIONS)


async def main(lifecycle: Lifecycle) -> None:
    """Project until the process stops, and answer health checks meanwhile."""
    async with (
        connect(lifecycle.settings.redis_url) as redis,
        await jetstream.connect(lifecycle.settings.nats_url, "projector") as nats,
    ):

        async def probe() -> bool:
            return nats.connected and await answers(redis)

        health = server.build(lifecycle.settings, address=lifecycle.settings.projector_address, probe=probe)
        await asyncio.gather(health.serve(lifecycle), project(lifecycle, redis, nats))


async def project(lifecycle: Lifecycle, redis: Redis, nats: Connection) -> None:
    """Run every projection over this process's share of the partitions, until the process stops."""
    await never_evicts(redis, lifecycle)
    leases = RedisLeases(redis, able=lambda: nats.connected)
    lifecycle.spawn(leases.keep(), "leases")
    runners = [
        Runner(
            projection,
            RedisStore(redis, projection.view),
            JetStreamFeed(nats, projection.view.source_streams),
            leases,
            observe=observer.observer(projection.view),
        )
        for projection in PROJECTIONS
    ]
    await asyncio.gather(*(runner.run(lifecycle.stopping) for runner in runners))
    await leases.leave()


if __name__ == "__main__":
    run_process(main, "projector", read_settings())
