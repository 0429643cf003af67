"""The composition root of the command server."""

from collections.abc import Sequence
from functools import partial

from command_server.fold_helper.fold_process import FoldProcess
from command_server.kernel.context import Context, aggregate_types
from command_server.kernel.event_lookups import EventLookups
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.request_hashes import RequestHashes
from command_server.kernel.sealing import Sealing
from command_server.metrics import QUEUED, create_window
from command_server.observer import (
    TimeSetAsideReport,
    instrument,
    log_fold,
    log_unreadable_event,
    measure_batch,
    observe_folds,
)
from command_server.postgres.event_index import PostgresEventIndex
from command_server.postgres.event_store import PostgresEventStore, session_settings
from command_server.postgres.schema import SERVICE_ROLE
from command_server.relay.notifier import RelayNotifier
from command_server.service import command_services, look_up_first
from command_server.traces import CommandTraces
from contracts.consistency_tokens import ConsistencyTokens
from contracts.key_ring import Purpose
from contracts.manifest import Manifest
from contracts.subject_keys import RingWrapper
from runtime.database_user import guard_start
from runtime.grpc import server
from runtime.grpc.refused_call_table import RefusedCallTable
from runtime.postgres import is_ready
from runtime.process import logs, workers
from runtime.process.contexts import load_parts
from runtime.process.key_file import KeyFile
from runtime.process.lifecycle import Lifecycle, read_contexts, read_settings
from runtime.process_reports.postgres_reports import PostgresReports
from runtime.process_reports.reporter import Reporter
from runtime.subject_keys import SubjectKeys

MAX_PENDING_CALLS = 500
"""Calls that may wait before gRPC begins to reject some: half the default, because a command takes twice as
long as a query."""

log = logs.get_logger(__name__)


async def main(lifecycle: Lifecycle, manifests: Sequence[Manifest]) -> None:
    """Serve the commands of the contexts until the process stops; then finish the queued ones."""
    contexts = load_parts(manifests, "commands", "CONTEXT", Context)
    modules = [manifest.commands for manifest in manifests if manifest.commands]
    own_purposes = [purpose for context in contexts for purpose in context.key_purposes]
    keys = KeyFile(lifecycle.settings.keys, [Purpose.CONSISTENCY_TOKENS, *own_purposes])
    lifecycle.spawn(keys.run(), "key ring")
    subject_keys = SubjectKeys(RingWrapper(keys.get_ring))
    if not subject_keys.wrapper.can_wrap:
        log.warning("Personal data recorded in clear", keys=lifecycle.settings.keys)
    store = PostgresEventStore(lifecycle.settings.database_url, subject_keys)
    await guard_start(lifecycle, store.engine)
    notifier = RelayNotifier(lifecycle.settings.nats_url)
    aggregates = aggregate_types(contexts)
    traces = CommandTraces()
    commits = GroupCommit(
        traces.trace_transactions(store),
        aggregates,
        notifier.notify,
        TimeSetAsideReport(),
        log_fold,
        lifecycle.settings.keep_requests,
        FoldProcess(
            lifecycle.settings.database_url,
            session_settings(SERVICE_ROLE),
            modules,
            lifecycle.settings.keys,
        ),
        lambda: notifier.max_payload,
        measure_batch,
        RequestHashes(keys.get_ring),
        Sealing(subject_keys),
    )
    QUEUED.observe(commits.count_queued)
    observe_folds(commits.folder)
    tokens = ConsistencyTokens(keys.get_ring)
    lookups = EventLookups(PostgresEventIndex(store), contexts, aggregates, log_unreadable_event)
    execute = instrument(traces.trace_commands(look_up_first(lookups, commits.execute)))
    services = [
        service
        for context in contexts
        for service in command_services(context, execute, tokens, keys.get_ring)
    ]
    edge = server.build(
        lifecycle.settings,
        services,
        address=lifecycle.settings.command_address,
        probe=partial(is_ready, store.engine),
        probe_address=lifecycle.settings.command_probe_address,
        max_pending=MAX_PENDING_CALLS,
        record_refused_call=RefusedCallTable(store.engine).record,
    )
    lifecycle.spawn(notifier.run(), "relay notifier")
    names = [manifest.name for manifest in manifests]
    reporter = Reporter("command_server", names, create_window(), PostgresReports(store.engine).write)
    lifecycle.spawn(reporter.run(), "process report")
    writer = lifecycle.spawn(commits.run(), "writer")
    await edge.serve(lifecycle)
    commits.close()
    await writer
    lookups.close()
    await store.close()


if __name__ == "__main__":
    settings = read_settings()
    workers.run(main, "command_server", settings, settings.command_address, read_contexts())
