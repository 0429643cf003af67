"""The composition root of the process manager."""

import asyncio
from collections.abc import Sequence

from contracts.key_ring import Purpose
from contracts.manifest import Manifest
from process_manager.deadlines.deadlines import Deadlines
from process_manager.dispatch.caller_record import CallerRecord, WrongCaller
from process_manager.dispatch.preceding_inputs import PrecedingInputs
from process_manager.dispatch.step_client import StepClient
from process_manager.dispatch.step_dispatcher import StepDispatcher
from process_manager.dispatch.timer_dispatcher import TimerDispatcher
from process_manager.dispatch.token_expiry import TokenExpiry
from process_manager.engine import Engine
from process_manager.feeds.event_consumer import EventConsumer
from process_manager.feeds.stream_reads import (
    read_ends_from,
    read_stream_end_from,
    read_stream_ends_from,
    read_stream_from,
)
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.inspection import Inspection
from process_manager.leases import Leases
from process_manager.postgres.late_pauses import LatePauses
from process_manager.postgres.store import SagaStore
from process_manager.queries import query_service
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.freshness import Freshness
from process_manager.queries.saga_queries import SagaQueries
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.staleness import SagaStaleness, add_staleness
from process_manager.saga import Saga
from runtime import jetstream
from runtime.database_user import guard_start
from runtime.grpc import request_tokens, server
from runtime.grpc.refused_call_table import RefusedCallTable
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.waits import Waits
from runtime.jetstream import PublicationClock, read_stream_identity
from runtime.postgres import is_ready
from runtime.process import logs, workers
from runtime.process.contexts import load_parts, name_group
from runtime.process.key_file import KeyFile
from runtime.process.lifecycle import Lifecycle, read_contexts, read_settings
from runtime.process.start_error import StartError
from runtime.process_reports.postgres_reports import PostgresReports
from runtime.process_reports.queries import report_queries
from runtime.process_reports.reporter import Reporter
from runtime.process_reports.window import Window
from runtime.telemetry.metrics import PARTITIONS_HELD

log = logs.get_logger(__name__)


async def main(lifecycle: Lifecycle, manifests: Sequence[Manifest]) -> None:
    """Run the sagas of the contexts on this process's share of the partitions; serve queries about them."""
    keys = KeyFile(lifecycle.settings.keys, [*request_tokens.PURPOSES, Purpose.FEED])
    lifecycle.spawn(keys.run(), "key ring")
    tokens = RequestTokens(keys.get_ring)
    sagas = load_parts(manifests, "sagas", "SAGAS", Saga)
    store = SagaStore(lifecycle.settings.database_url)
    await guard_start(lifecycle, store.engine)
    callers = CallerRecord(store.reserved, [saga.name for saga in sagas])
    client = StepClient(lifecycle.settings, callers.check)
    if client.tls is not None:
        lifecycle.spawn(client.tls.run(), "changes of files")
    await client.tokens.prepare()
    await check_token(client)
    lifecycle.spawn(client.tokens.run(), "token")
    lifecycle.spawn(TokenExpiry(client.tokens).run(), "token expiry")
    async with await jetstream.connect(lifecycle.settings.nats_url, "process_manager", keys.get_ring) as nats:
        engine = Engine(store, sagas, read_stream_from(nats))
        leases = Leases(store, name_group(manifests, "sagas"))

        async def probe() -> bool:
            nats.check_connected()
            return await is_ready(store.engine)

        async def read_incarnation() -> str:
            identity = await read_stream_identity(nats.js)
            return identity.incarnation if identity else ""

        reader = SagaReader(store.engine, sagas)
        freshness = Freshness(
            tokens,
            Waits.of(lifecycle.settings),
            FeedReader(store.statements),
            read_incarnation,
            read_stream_end_from(nats),
        )
        engine.after_delivery = freshness.wake
        queries = SagaQueries(sagas, reader, freshness, tokens)
        publication = PublicationClock(nats)
        replayer, deadlines = StreamReplayer(engine, leases), Deadlines(engine, store)
        events = EventConsumer(nats, engine, store, leases, replayer, deadlines, publication)
        staleness = SagaStaleness(
            sagas,
            FeedReader(store.statements),
            store.progress.read_feeds,
            lambda: events.reader.latest_check,
            lambda: read_stream_identity(nats.js),
            read_ends_from(nats),
        )
        events.reader.on_check = staleness.note_check
        lifecycle.spawn(publication.run(), "publication clock")
        lifecycle.spawn(staleness.run(), "staleness")
        served = [add_staleness(query_service.create_service(queries), staleness, list(queries.sagas))]
        query_server = server.build(
            lifecycle.settings,
            served,
            address=lifecycle.settings.process_manager_address,
            probe=probe,
            record_refused_call=RefusedCallTable(store.engine).record,
        )
        preceding = PrecedingInputs(
            engine.sagas,
            store,
            read_stream_ends_from(nats),
            lambda: leases.silent_targets,
            lambda: publication.latest,
        )
        workers = (
            leases,
            events,
            replayer,
            StepDispatcher(engine, store, client, leases),
            TimerDispatcher(engine, store, leases, preceding, deadlines),
            Inspection(engine, store, leases),
            LatePauses(store),
        )

        names = [manifest.name for manifest in manifests]
        window = Window(durations=report_queries(served))
        reporter = Reporter("process_manager", names, window, PostgresReports(store.engine).write)
        reporter.get_partitions = lambda: leases.partitions
        PARTITIONS_HELD.observe(lambda: len(leases.partitions))
        lifecycle.spawn(reporter.run(), "process report")

        async def work() -> None:
            await asyncio.gather(*(worker.run(lifecycle.stopping) for worker in workers))
            await leases.leave()  # queries may still be served
            await deadlines.close()

        await asyncio.gather(query_server.serve(lifecycle), work())
    await client.close()
    await store.close()


async def check_token(client: StepClient) -> None:
    """Compare the subject of the token with the record, as far as both can be read now.

    What cannot be read is checked before the first step is sent.

    Raises:
        StartError: the token has another subject.
    """
    try:
        await client.read_token()
    except WrongCaller as error:
        raise StartError(str(error)) from error
    except Exception as error:  # the file is not there yet, or PostgreSQL is away
        log.warning("Token not checked at the start", error=repr(error))


if __name__ == "__main__":
    workers.run_single(main, "process_manager", read_settings(), read_contexts())
