"""The process manager: how its parts are put together. Its sagas are listed in `sagas/`."""

import asyncio

from process_manager.engine import Engine
from process_manager.event_consumer import Hearing, history
from process_manager.freshness import Freshness
from process_manager.leases import Leases
from process_manager.saga_reader import SagaReader
from process_manager.sagas import SAGAS
from process_manager.sagas.fulfilment.queries import fulfilment_queries
from process_manager.step_client import Caller
from process_manager.step_dispatcher import Clockwork
from process_manager.store import SagaStore
from runtime import jetstream
from runtime.grpc import server
from runtime.jetstream import stream_identity
from runtime.process import lifecycle
from runtime.process.lifecycle import Lifecycle


async def main(life: Lifecycle) -> None:
    """Run every saga over this process's share of the partitions, and tell how they go, until it stops."""
    store, caller = SagaStore(life.settings.database_url), Caller(life.settings)
    async with await jetstream.connect(life.settings.nats_url, "process_manager") as nats:
        engine = Engine(store, SAGAS, history(nats))
        leases = Leases(store)

        async def probe() -> bool:
            return nats.connected and await store.reachable()

        async def incarnation() -> str:
            identity = await stream_identity(nats.js)
            return identity.incarnation if identity else ""

        sagas = SagaReader(store.engine)
        edge = server.build(
            life.settings,
            [fulfilment_queries(sagas, Freshness(sagas, incarnation))],
            address=life.settings.process_manager_address,
            probe=probe,
        )
        hearing = Hearing(nats, engine, store, leases)
        clockwork = Clockwork(engine, store, caller, leases)
        await asyncio.gather(
            edge.serve(life),
            leases.keep(life.stopping),
            hearing.run(life.stopping),
            clockwork.run(life.stopping),
        )
        await leases.leave()
    await caller.close()
    await store.close()


if __name__ == "__main__":
    lifecycle.run(main, "process_manager", lifecycle.settings())
