"""The relay process: leader or standby, with a health check."""

from functools import partial

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.event_stream import EventStream
from command_server.relay.key_replies import create_key_replies
from command_server.relay.metrics import LEADS, OUTBOX_PENDING
from command_server.relay.observer import ObservedPublisher
from command_server.relay.outbox import Outbox
from command_server.relay.outbox_maintenance import PendingEvents, prune_outbox
from command_server.relay.relay import Relay
from command_server.relay.skip_replies import create_skip_replies
from contracts.key_ring import Purpose
from runtime.database_user import guard_start
from runtime.grpc import server
from runtime.grpc.health import NotReady
from runtime.jetstream import connect
from runtime.leader_lease import Lease
from runtime.postgres import create_engine, is_ready
from runtime.process.key_file import KeyFile
from runtime.process.lifecycle import Lifecycle, cancel_and_wait, read_settings, run_process
from runtime.process_reports.postgres_reports import PostgresReports
from runtime.process_reports.reporter import Reporter
from runtime.process_reports.window import Window


async def main(lifecycle: Lifecycle) -> None:
    """Run as leader or standby until the process stops, then release the lease."""
    settings = lifecycle.settings
    keys = KeyFile(settings.keys, [Purpose.FEED])
    lifecycle.spawn(keys.run(), "key ring")
    engine = create_engine(settings.database_url, session=session_settings(RELAY_ROLE))
    await guard_start(lifecycle, engine)
    async with await connect(settings.nats_url, "relay", keys.get_ring) as connection:
        lease = Lease(engine, can_lead=lambda: connection.connected)
        stream = EventStream(connection, keeps_all=settings.keep_stream is None)
        relay = Relay(Outbox(engine), stream, ObservedPublisher(stream))
        prune = partial(prune_outbox, Outbox(engine), settings.outbox_retention)
        pending = PendingEvents(Outbox(engine))
        OUTBOX_PENDING.observe(lambda: pending.number)
        counting = lifecycle.spawn(pending.run(), "pending events")

        async def probe() -> bool:
            if relay.blocked:
                raise NotReady("the next event is larger than NATS accepts (max_payload); the feed waits")
            connection.check_connected()
            return await is_ready(engine)

        reporter = Reporter("relay", (), Window(), PostgresReports(engine).write)
        reporter.get_leads = lambda: lease.leads
        LEADS.observe(lambda: int(lease.leads))
        lifecycle.spawn(reporter.run(), "process report")
        lifecycle.spawn(create_skip_replies(connection, engine).run(), "replies about skipped events")
        lifecycle.spawn(create_key_replies(connection, engine).run(), "replies with keys of persons")
        health = server.build(settings, address=settings.relay_address, probe=probe)
        leader = lifecycle.spawn(lease.run_as_leader(relay.lead, prune), "relay")
        try:
            await health.serve(lifecycle)
        finally:
            await cancel_and_wait(leader, counting)
            await lease.release()
            await engine.dispose()


if __name__ == "__main__":
    run_process(main, "relay", read_settings())
