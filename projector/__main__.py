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
from runtime.process import lifecycle
from runtime.process.lifecycle import Lifecycle

PROJECTIONS = (*ordering.PROJECTIONS, *inventory.PROJECTIONS, *banking.PROJECTIONS)


async def main(life: Lifecycle) -> None:
    """Project until the process stops, and answer health checks meanwhile."""
    async with (
        connect(life.settings.redis_url) as redis,
        await jetstream.connect(life.settings.nats_url, "projector") as nats,
    ):

        async def probe() -> bool:
            return nats.connected and await answers(redis)

        health = server.build(life.settings, address=life.settings.projector_address, probe=probe)
        await asyncio.gather(health.serve(life), project(life, redis, nats))


async def project(life: Lifecycle, redis: Redis, nats: Connection) -> None:
    """Run every projection over this process's share of the partitions, until the process stops."""
    await never_evicts(redis, life)
    leases = RedisLeases(redis, able=lambda: nats.connected)
    life.spawn(leases.keep(), "leases")
    runners = [
        Runner(
            projection,
            RedisStore(redis, projection.view),
            JetStreamFeed(nats, projection.view.hears),
            leases,
            observe=observer.observer(projection.view),
        )
        for projection in PROJECTIONS
    ]
    await asyncio.gather(*(runner.run(life.stopping) for runner in runners))
    await leases.leave()


if __name__ == "__main__":
    lifecycle.run(main, "projector", lifecycle.settings())
