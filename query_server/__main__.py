"""The composition root of the query server."""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from contracts.manifest import Manifest
from query_server.change_notifications import ChangeNotifications
from query_server.read_models import ServingReadModel
from query_server.redis_client import RedisClient
from query_server.search.follower import IndexFollower
from query_server.search.indexes import open_index
from query_server.service import QueryContext, query_service
from query_server.staleness import StalenessSampler
from query_server.traced_redis import TracedRedisClient
from runtime.grpc import request_tokens, server
from runtime.grpc.access import recorded_ids_of
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.metrics import WATCHES_OPEN
from runtime.grpc.recorded_reads import RecordRead
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.routes import Service
from runtime.grpc.waits import Waits
from runtime.process import workers
from runtime.process.contexts import load_parts
from runtime.process.key_file import KeyFile
from runtime.process.lifecycle import Lifecycle, read_contexts, read_settings
from runtime.process_reports.queries import report_queries
from runtime.process_reports.redis_reports import RedisReports
from runtime.process_reports.reporter import Reporter
from runtime.process_reports.window import Window
from runtime.redis.address import parse_address
from runtime.telemetry import tracing


async def main(lifecycle: Lifecycle, manifests: Sequence[Manifest]) -> None:
    """Serve the queries of the contexts until the process stops."""
    contexts = load_parts(manifests, "queries", "CONTEXT", QueryContext)
    own_purposes = [purpose for context in contexts for purpose in context.key_purposes]
    keys = KeyFile(lifecycle.settings.keys, [*request_tokens.PURPOSES, *own_purposes])
    lifecycle.spawn(keys.run(), "key ring")
    tokens, waits = RequestTokens(keys.get_ring), Waits.of(lifecycle.settings)
    address = parse_address(lifecycle.settings.redis_url)
    client = TracedRedisClient if tracing.is_on() else RedisClient
    async with client(address) as redis, AsyncExitStack() as stack:
        queries = [query for context in contexts for query in context.queries.values()]
        queried_views = {view for query in queries for view in (query.view, *query.others)}
        watched_views = {watch.view for context in contexts for watch in context.watches.values()}
        definitions = [definition for context in contexts for definition in context.indexes]
        views = queried_views | watched_views
        notifications = ChangeNotifications(address, redis, views)
        lifecycle.spawn(notifications.run(lifecycle.stopping), "change notifications")
        models = {view: ServingReadModel.of(view, redis, notifications, tokens, waits) for view in views}
        indexes = {
            each.name: await stack.enter_async_context(
                open_index(each, models, notifications, waits, redis, lifecycle)
            )
            for each in definitions
        }
        sampler = StalenessSampler(redis, models.values())
        lifecycle.spawn(sampler.run(), "staleness")
        watch_limit = CallLimit(
            "TOO_MANY_WATCHES",
            "watches",
            lifecycle.settings.max_watches_per_caller,
            lifecycle.settings.max_watches,
        )
        WATCHES_OPEN.observe(lambda: watch_limit.taken)
        services = [
            query_service(context, models, notifications, watch_limit, indexes) for context in contexts
        ]
        names = [manifest.name for manifest in manifests]
        window = Window(durations=report_queries(services))
        reporter = Reporter("query_server", names, window, RedisReports(redis.call).write)
        reporter.get_staleness = sampler.read_ages
        lifecycle.spawn(reporter.run(), "process report")
        edge = server.build(
            lifecycle.settings,
            services,
            address=lifecycle.settings.query_address,
            probe=partial(is_ready, redis, indexes.values()),
            probe_address=lifecycle.settings.query_probe_address,
            record_read=await open_record(services, lifecycle, stack),
        )
        await edge.serve(lifecycle)


async def open_record(
    services: Iterable[Service], lifecycle: Lifecycle, stack: AsyncExitStack
) -> RecordRead | None:
    """Return what records reads; None if no method wants it, so that the process needs no PostgreSQL."""
    methods = [method for service in services for method in service.descriptor.methods]
    if all(recorded_ids_of(method) is None for method in methods):
        return None
    from runtime.grpc.read_table import ReadTable, create_read_engine  # 40 MB of memory

    table = ReadTable(create_read_engine(lifecycle.settings.database_url))
    stack.push_async_callback(table.close)
    await table.guard_start(lifecycle)
    return table.record


async def is_ready(redis: RedisClient, indexes: Iterable[IndexFollower]) -> bool:
    """Return whether Redis serves reads, and all indexes were filled.

    Raises:
        NotReady, RpcError: as `RedisClient.is_ready` and `IndexFollower.check_ready`.
    """
    ready = await redis.is_ready()
    for index in indexes:
        await index.check_ready()
    return ready


if __name__ == "__main__":
    settings = read_settings()
    workers.run(main, "query_server", settings, settings.query_address, read_contexts())
