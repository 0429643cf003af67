"""The process manager: its sagas, and how its parts are put together."""

import asyncio
from typing import Any

from process_manager.calling import Caller
from process_manager.engine import Engine
from process_manager.hearing import Hearing, history
from process_manager.leases import Leases
from process_manager.saga import Saga
from process_manager.sagas import deadlines, fulfilment
from process_manager.sending import Clockwork
from process_manager.store import SagaStore
from runtime import jetstream, lifecycle
from runtime.grpc import server
from runtime.lifecycle import Lifecycle

SAGAS: tuple[Saga[Any], ...] = (fulfilment.FULFILMENT, deadlines.RESERVATIONS, deadlines.HOLDS)


async def main(life: Lifecycle) -> None:
    """Run every saga over this process's share of the partitions until the process stops."""
    store, caller = SagaStore(life.settings.database_url), Caller(life.settings)
    async with await jetstream.connect(life.settings.nats_url, "process_manager") as nats:
        engine = Engine(store, SAGAS, history(nats))
        leases = Leases(store)

        async def probe() -> bool:
            return nats.connected and await store.reachable()

        health = server.build(life.settings, address=life.settings.process_manager_address, probe=probe)
        hearing = Hearing(nats, engine, store, leases)
        clockwork = Clockwork(engine, store, caller, leases)
        await asyncio.gather(
            health.serve(life),
            leases.keep(life.stopping),
            hearing.run(life.stopping),
            clockwork.run(life.stopping),
        )
        await leases.leave()
    await caller.close()
    await store.close()


if __name__ == "__main__":
    lifecycle.run(main, "process_manager", lifecycle.settings())
