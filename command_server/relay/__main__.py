"""The relay process: it leads or stands by, and answers health checks."""

from functools import partial

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import RELAY_ROLE
from command_server.relay.event_stream import EventStream
from command_server.relay.housekeeping import keep_house
from command_server.relay.lease import Lease
from command_server.relay.observer import Observed
from command_server.relay.outbox import Outbox
from command_server.relay.relay import Relay
from runtime.grpc import server
from runtime.jetstream import connect
from runtime.postgres import create_engine
from runtime.process.lifecycle import Lifecycle, cancelled, read_settings, run_process
from runtime.telemetry import metrics


async def main(lifecycle: Lifecycle) -> None:
    """Lead or stand by until the process stops, then let another relay lead."""
    settings = lifecycle.settings
    engine = create_engine(settings.database_url, session=session_settings(RELAY_ROLE))
    async with await connect(settings.nats_url, "relay") as connection:
        lease = Lease(engine, able=lambda: connection.connected)
        stream = EventStream(connection)
        relay = Relay(Outbox(engine), stream, Observed(stream))
        tidy = partial(keep_house, Outbox(engine), settings.outbox_retention, metrics.outbox_pending)

        async def probe() -> bool:
            return connection.connected and await reachable(engine)

        health = server.build(settings, address=settings.relay_address, probe=probe)
        leading = lifecycle.spawn(lease.lead_or_stand_by(relay.lead, tidy), "relay")
        try:
            await health.serve(lifecycle)
        finally:
            await cancelled(leading)
            await lease.give_back()
            await engine.dispose()


async def reachable(engine: AsyncEngine) -> bool:
    """Return whether PostgreSQL answers; where it does not, what is raised says why."""
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT true")) is True


if __name__ == "__main__":
    run_process(main, "relay", read_settings())
