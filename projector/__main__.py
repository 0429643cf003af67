"""The composition root of the projector."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from contracts.key_ring import Purpose
from contracts.manifest import Manifest
from projector.code_version import compute_code_version
from projector.event_feed import JetStreamEventFeed
from projector.generations import Generations
from projector.leases import RedisLeases
from projector.metrics import create_window
from projector.observer import create_observer, observe_progress
from projector.pace import Pace
from projector.projection import Projection
from projector.projection_code import compute_projection_version
from projector.redis_connection import connect, is_ready, prepare
from projector.redis_memory import watch_memory
from projector.redis_skips import RedisSkips
from projector.redis_store import RedisStore
from projector.retry_schedule import RETRY_POLICY
from projector.runner import Runner
from projector.skips import Skips
from runtime import jetstream
from runtime.grpc import server
from runtime.jetstream import Connection, PublicationClock, SharedReader
from runtime.process import workers
from runtime.process.contexts import load_parts, name_group
from runtime.process.key_file import KeyFile
from runtime.process.lifecycle import Lifecycle, read_contexts, read_settings
from runtime.process_reports.redis_reports import RedisReports
from runtime.process_reports.reporter import Reporter
from runtime.telemetry.metrics import PARTITIONS_HELD


async def main(lifecycle: Lifecycle, manifests: Sequence[Manifest]) -> None:
    """Run the projections of the contexts and serve health checks until the process stops."""
    projections = load_parts(manifests, "projections", "PROJECTIONS", Projection)
    group, names = name_group(manifests, "projections"), [manifest.name for manifest in manifests]
    keys = KeyFile(lifecycle.settings.keys, [Purpose.FEED])
    lifecycle.spawn(keys.run(), "key ring")
    async with (
        connect(lifecycle.settings.redis_url) as redis,
        await jetstream.connect(lifecycle.settings.nats_url, "projector", keys.get_ring) as nats,
    ):

        async def probe() -> bool:
            nats.check_connected()
            return await is_ready(redis)

        health = server.build(lifecycle.settings, address=lifecycle.settings.projector_address, probe=probe)
        await asyncio.gather(
            health.serve(lifecycle), run_projections(lifecycle, projections, group, names, redis, nats)
        )


async def run_projections(
    lifecycle: Lifecycle,
    projections: Sequence[Projection[Any]],
    group: str,
    names: Sequence[str],
    redis: Redis,
    nats: Connection,
) -> None:
    """Run the projections on this process's share of its group's partitions, until the process stops."""
    await prepare(redis, lifecycle)
    leases = RedisLeases(redis, group, can_work=lambda: nats.connected)
    lifecycle.spawn(leases.keep(), "leases")
    lifecycle.spawn(watch_memory(redis), "memory of Redis")
    publication = PublicationClock(nats)
    lifecycle.spawn(publication.run(), "publication clock")
    shared = SharedReader(nats, lambda: leases.partitions, publication)
    lifecycle.spawn(shared.run(), "stream checks")
    replay_turn = asyncio.Semaphore(1)
    retries = replace(RETRY_POLICY, code=compute_code_version())
    codes = {each.view.projection: compute_projection_version(each) for each in projections}

    def create_runner(projection: Projection[Any], pace: Pace) -> Runner:
        view = projection.view
        return Runner(
            projection,
            RedisStore(redis, view, codes[view.projection]),
            JetStreamEventFeed(nats, shared, view.source_streams),
            leases,
            retries,
            observe=create_observer(view, lambda: generations[view.projection].serving == view.generation),
            skips=Skips(RedisSkips(redis, nats, view)),
            replay_turn=replay_turn,
            pace=pace,
        )

    generations = {
        each.view.projection: Generations(redis, each, create_runner, codes[each.view.projection])
        for each in projections
    }
    observe_progress(
        lambda: [progress for each in generations.values() if (progress := each.describe_progress())]
    )
    PARTITIONS_HELD.observe(lambda: len(leases.partitions))
    reporter = Reporter("projector", names, create_window(), RedisReports(redis.execute_command).write)
    reporter.get_partitions = lambda: leases.partitions
    lifecycle.spawn(reporter.run(), "process report")
    await asyncio.gather(*(each.run(lifecycle.stopping) for each in generations.values()))
    await leases.leave()


if __name__ == "__main__":
    workers.run_single(main, "projector", read_settings(), read_contexts())
