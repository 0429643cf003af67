"""Open instances whose state is of an earlier release get the input that they need, once."""

from dataclasses import replace
from typing import Any

from process_manager.inspection import Inspection
from process_manager.leases import Leases
from process_manager.postgres.store import SagaStore
from process_manager.saga import Input, Reaction, RowTakenOver, Send
from tests.support.harness.saga_run import SagaRun, written
from tests.support.ledger.sagas import COLLECTION, react
from tests.support.ledger.stubs import commands


def react_to_all(collection: Any, input_: Input) -> Reaction[Any]:
    if not isinstance(input_, RowTakenOver):
        return react(collection, input_)
    request = commands.CashChequeRequest(cheque_id=collection.cheque_id)
    return Reaction(replace(collection, reason="taken over"), [Send("again", request)])


SAGA = replace(COLLECTION, react=react_to_all, needs_input=lambda state: not state.reason)


async def test_an_instance_of_an_earlier_release_gets_its_input_once(store: SagaStore) -> None:
    run = SagaRun(store, COLLECTION)
    await run.deliver(written("c"), written("d"))
    await run.query("UPDATE sagas SET ended = true WHERE id = 'd'")
    run = SagaRun(store, SAGA)
    leases = Leases(store, "ledger")
    await leases.renew()
    for _ in range(2):
        await Inspection(run.engine, store, leases).inspect_page()
    await leases.leave()
    steps = await run.query("SELECT id, step FROM saga_steps ORDER BY id, step")
    assert [tuple(row) for row in steps] == [("c", "again"), ("c", "cash"), ("d", "cash")]
    await run.engine.take_over(SAGA.name, "c")
    assert len(await run.query("SELECT step FROM saga_steps WHERE id = 'c'")) == 2
