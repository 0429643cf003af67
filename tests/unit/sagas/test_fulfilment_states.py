"""All states that a fulfilment reaches by a few commands of people, with events and answers in any order.

The simulation checks each step that is sent: none acquires anything for an order that nobody cleared.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from tests.support.builders.orders import OWN_PRICES
from tests.support.models.fulfilment_simulation import ACTIVITY, ORDER, Simulation

LAMP = orders.OrderLine("pot", "A lamp", 1, Money("EUR", 6_000))
CONFIRM, APPROVE = orders.ConfirmOrder("o-1"), orders.ApproveOrder("o-1")
SHIP, EDIT = orders.ShipOrder("o-1", "Swift", "1"), orders.AddOrderLine("o-1", "", LAMP, scopes=OWN_PRICES)
OTHERS = (
    orders.HoldOrder("o-1", "let me see"),
    orders.CancelOrder("o-1", "changed my mind"),
    orders.RemoveOrderLine("o-1", "", "mug"),
)
HARMLESS, SUSPICIOUS = 10, 200


def explore(price: int, commands: Sequence[Any], most: int) -> Counter[str]:
    """Visit every state; return the number of those in which nothing moves, by the saga's state.

    Args:
        price: of each of four pieces.
        commands: those of people.
        most: of which at most this many are executed.
    """
    start = Simulation(money=20_000, price=price)
    start.supply()
    start.place_order()
    remaining, visited, ends = [start], set[object](), Counter[str]()
    for left in range(most, -1, -1):
        commanded: list[Simulation] = []
        while remaining:
            simulation = remaining.pop()
            if (state := read_state(simulation)) in visited:
                continue
            visited.add(state)
            remaining += (moved := list(move(simulation)))
            ends[simulation.saga_status] += not moved
            commanded += execute_each(simulation, commands) if left else ()
        remaining = commanded
    return +ends


def read_state(simulation: Simulation) -> object:
    """Return what the future of a simulation depends on."""
    saga = replace(simulation.instance.state, record_number=0, recorded="")
    pending = tuple(sent.name for sent in simulation.pending)
    events = tuple(str(event) for name, event in simulation.world.history if name in (ORDER, ACTIVITY))
    return repr(saga), pending, events, str(simulation._delivered)


def move(simulation: Simulation) -> Iterator[Simulation]:
    """Yield the simulation after each next event or answer."""
    for stream in (ORDER, ACTIVITY):
        if (after := simulation.copy()).deliver_event(stream=stream):
            yield after
    if (after := simulation.copy()).answer_step():
        yield after


def execute_each(simulation: Simulation, commands: Sequence[Any]) -> Iterator[Simulation]:
    """Yield the simulation after each command that is accepted."""
    for command in commands:
        after = simulation.copy()
        try:
            after.execute(command)
        except Rejected:
            continue
        yield after


def test_a_suspicious_order_acquires_nothing_in_any_state_without_an_approval() -> None:
    assert explore(SUSPICIOUS, (CONFIRM, SHIP), 2).keys() == {"IN_REVIEW", "BLOCKED"}


def test_an_edit_ends_the_approval_in_every_state() -> None:
    ends = explore(SUSPICIOUS, (CONFIRM, APPROVE, EDIT), 2)
    assert ends.keys() == {"IN_REVIEW", "BLOCKED", "CONFIRMED"}


@pytest.mark.long
@pytest.mark.parametrize(("price", "others"), [(HARMLESS, ()), (SUSPICIOUS, OTHERS)])
def test_every_state_that_three_commands_reach_acquires_nothing_uncleared(
    price: int, others: Sequence[Any]
) -> None:
    ends = explore(price, (CONFIRM, APPROVE, SHIP, EDIT, *others), 3)
    assert ends.keys() >= {"IN_REVIEW", "BLOCKED", "CONFIRMED", "FULFILLED"}
