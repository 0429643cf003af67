"""The process manager: how its parts are put together. Its sagas are listed in `sagas/`."""

import asyncio

from process_manager.engine import Engine
from process_manager.event_consumer import EventConsumer, history
from process_manager.freshness import Freshness
from process_manager.leases import Leases
from process_manager.saga_reader import SagaReader
from process_manager.sagas import SAGAS
from process_manager.sagas.fulfilment.queries import fulfilment_queries
from process_manager.step_client import StepClient
from process_manager.step_dispatcher import StepDispatcher
from process_manager.store import SagaStore
from runtime import jetstream
from runtime.grpc import server
from runtime.jetstream import stream_identity
from runtime.process.lifecycle import Lifecycle, read_settings, run_process


async def main(lifecycle: Lifecycle) -> None:
    """Run every saga over this process's share of the partitions, and tell how they go, until it stops."""
    store, caller = SagaStore(lifecycle.settings.database_url), StepClient(lifecycle.settings)
    async with await jetstream.connect(lifecycle.settings.nats_url, "process_manager") as nats:
        engine = Engine(store, SAGAS, history(nats))
        leases = Leases(store)

        async def probe() -> bool:
            return nats.connected and await store.reachable()

        async def incarnation() -> str:
            identity = await stream_identity(nats.js)
            return identity.incarnation if identity else ""

        sagas = SagaReader(store.engine)
        edge = server.build(
            lifecycle.settings,
            [fulfilment_queries(sagas, Freshness(sagas, incarnation))],
            address=lifecycle.settings.process_manager_address,
            probe=probe,
        )
        hearing = EventConsumer(nats, engine, store, leases)
        clockwork = StepDispatcher(engine, store, caller, leases)
        await asyncio.gather(
            edge.serve(lifecycle),
            leases.keep(lifecycle.stopping),
            hearing.run(lifecycle.stopping),
            clockwork.run(lifecycle.stopping),
        )
        await leases.leave()
    await caller.close()
    await store.close()


if __name__ == "__main__":
    run_process(main, "process_manager", read_settings())
