"""The records of a fulfilment's progress: one for each change that callers see; nothing waits for them."""

from datetime import timedelta
from typing import Any

import pytest
from diptych.fulfilment.v1.types_pb2 import Fulfilment
from msgspec.structs import replace

from command_server.contexts.ordering.domain import messages as orders
from diptych_testing import folds
from diptych_testing.saga_simulation import SagaSimulation
from process_manager.saga import RowTakenOver
from process_manager.sagas.fulfilment import CONFIRMATION_TIMEOUT, FULFILMENT
from tests.support.models.fulfilment_simulation import Simulation

SHIP = orders.ShipOrder("o-1", "Swift", "1")


class Recorded(Simulation):
    """A simulation that lets a test answer the records of the progress."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._answered_at_once = ()


def read_records(simulation: SagaSimulation) -> list[tuple[str, int]]:
    """Return the recorded states with the versions of the order."""
    return [
        (event.state.name, event.order_version)
        for _, event in simulation.world.history
        if type(event).__name__ == "FulfilmentRecorded"
    ]


def placed(**options: Any) -> Recorded:
    simulation = Recorded(**options)
    simulation.place_order()
    return simulation


def settle_without_records(simulation: SagaSimulation) -> None:
    """Deliver events and answer all other steps until none are left."""
    while simulation.deliver_event() or any(
        simulation.answer_step(each.name) for each in [*simulation.pending] if not each.is_kind("record")
    ):
        pass


def test_each_state_is_recorded_once() -> None:
    simulation = placed()
    simulation.settle()
    assert read_records(simulation) == [("PREPARING", 1), ("CONFIRMED", 2)]
    simulation.execute(SHIP)
    simulation.settle()
    assert read_records(simulation)[2:] == [("SHIPPED", 3), ("FULFILLED", 3)]
    folds.compare(simulation.world)


def test_a_confirmed_order_names_its_claims() -> None:
    simulation = placed()
    simulation.settle()
    first, last = (
        event for _, event in simulation.world.history if type(event).__name__ == "FulfilmentRecorded"
    )
    assert (first.reservation_id, first.hold_id) == ("", "")
    assert first.max_seconds == CONFIRMATION_TIMEOUT / timedelta(seconds=1)
    claims = [name for name, _ in simulation.world.history if name.startswith("inventory.reservation.")]
    assert f"inventory.reservation.{last.reservation_id}" in claims
    assert (bool(last.hold_id), last.waiting_for, last.max_seconds) == (True, "shipment", 0)


def test_an_order_that_cannot_be_fulfilled_is_recorded_with_the_reason() -> None:
    simulation = placed(stock=1)
    simulation.settle()
    states = read_records(simulation)
    assert (states[0], states[-1]) == (("PREPARING", 1), ("REJECTED", 2))
    (_, last) = simulation.world.history[-1]
    assert last.rejection == "STOCK_INSUFFICIENT"


def test_nothing_waits_for_a_record() -> None:
    simulation = placed()
    settle_without_records(simulation)
    assert simulation.order_status == "CONFIRMED"
    assert [each.is_kind("record") for each in simulation.pending] == [True, True]


def test_a_record_that_a_later_one_overtakes_changes_nothing() -> None:
    simulation = placed()
    settle_without_records(simulation)
    first, second = (each.name for each in simulation.pending)
    assert simulation.answer_step(second)
    assert simulation.answer_step(first)
    assert read_records(simulation) == [("CONFIRMED", 2)]


def test_a_record_whose_reply_is_lost_is_recorded_once() -> None:
    simulation = placed()
    simulation.deliver_event()
    while not simulation.pending[0].is_kind("record"):
        assert simulation.answer_step()
    simulation.lose_reply()
    simulation.settle()
    assert read_records(simulation) == [("PREPARING", 1), ("CONFIRMED", 2)]


@pytest.mark.parametrize("reason", ["FIELD_INVALID", "ANYTHING"])
def test_a_rejected_record_blocks_nothing(reason: str) -> None:
    simulation = placed()
    simulation.rejections["record"] = reason
    simulation.settle()
    assert (simulation.order_status, simulation.saga_status) == ("CONFIRMED", "CONFIRMED")
    assert read_records(simulation) == []
    simulation.rejections.clear()
    simulation.execute(SHIP)
    simulation.settle()
    assert read_records(simulation) == [("SHIPPED", 3), ("FULFILLED", 3)]


def test_an_open_instance_of_an_earlier_release_is_recorded() -> None:
    simulation = placed()
    simulation.settle()
    state = simulation.instance.state
    earlier = replace(state, record_number=0, recorded="", record_format=0)
    assert (FULFILMENT.needs_input(state), FULFILMENT.needs_input(earlier)) == (False, True)
    reaction = FULFILMENT.react(earlier, RowTakenOver(simulation.world.now))
    (send,) = reaction.send
    request: Any = send.request
    assert (send.step, request.state) == (f"record-{request.number}", Fulfilment.STATE_CONFIRMED)
    assert replace(reaction.state, record_number=0, recorded="", record_format=0) == earlier
    assert not FULFILMENT.needs_input(reaction.state)
    assert not FULFILMENT.needs_input(FULFILMENT.initial)


def test_an_open_instance_that_was_recorded_without_its_customer_is_recorded_again() -> None:
    simulation = placed()
    simulation.settle()
    earlier = replace(simulation.instance.state, record_format=0)
    assert FULFILMENT.needs_input(earlier)
    reaction = FULFILMENT.react(earlier, RowTakenOver(simulation.world.now))
    (send,) = reaction.send
    request: Any = send.request
    assert (request.customer_id, request.number > earlier.record_number) == ("ada", True)
    assert not FULFILMENT.needs_input(reaction.state)


def test_an_earlier_release_that_drops_the_last_record_ends_none_of_the_later_ones() -> None:
    simulation = placed()
    simulation.settle()
    state = simulation.instance.state
    simulation.instance.state = replace(state, record_number=0, recorded="", record_format=0)
    simulation.world.now += timedelta(seconds=1)
    simulation.execute(SHIP)
    simulation.settle()
    assert read_records(simulation)[-2:] == [("SHIPPED", 3), ("FULFILLED", 3)]
