"""The command server: its contexts, and how its parts are put together."""

from collections.abc import Sequence

from command_server.contexts import banking, inventory, ordering
from command_server.kernel.context import Context, aggregate_types
from command_server.kernel.pipeline import GroupCommit
from command_server.observer import observed
from command_server.postgres.event_store import PostgresEventStore
from command_server.postgres.refused_calls import RefusedCallLog
from command_server.relay.wake import RelayWake
from command_server.service import command_services
from runtime.grpc import server
from runtime.process import workers
from runtime.process.lifecycle import Lifecycle, read_settings

CONTEXTS = (ordering.CONTEXT, inventory.CONTEXT, banking.CONTEXT)
QUEUE = 500
"""How many calls may wait before gRPC begins to turn some away: a command takes twice the time of a query."""


async def main(lifecycle: Lifecycle, contexts: Sequence[Context]) -> None:
    """Serve these contexts' commands until the process stops, then finish those that were accepted."""
    store = PostgresEventStore(lifecycle.settings.database_url)
    wake = RelayWake(lifecycle.settings.nats_url)
    commits = GroupCommit(store, aggregate_types(contexts), wake.committed)
    execute = observed(commits.execute)
    services = [service for context in contexts for service in command_services(context, execute)]
    edge = server.build(
        lifecycle.settings,
        services,
        address=lifecycle.settings.command_address,
        probe=store.reachable,
        probe_address=lifecycle.settings.command_probe_address,
        queue=QUEUE,
        record_refused_call=RefusedCallLog(store.engine).record,
    )
    lifecycle.spawn(wake.run(), "wake")
    writer = lifecycle.spawn(commits.run(), "writer")
    await edge.serve(lifecycle)
    commits.close()
    await writer
    await store.close()


if __name__ == "__main__":
    settings = read_settings()
    names = {context.name: context for context in CONTEXTS}
    workers.run(main, "command_server", settings, settings.command_address, names)
