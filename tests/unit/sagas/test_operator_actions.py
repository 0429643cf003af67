"""Operators retry and abort a fulfilment at every point of its paths, and it comes to its end."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count, product
from typing import Any

import pytest

from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.decider import Rejected
from process_manager.saga import ActionNotPossible
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.models.fulfilment_simulation import Simulation

SHIP, DELIVER = orders.ShipOrder("o-1", "Swift", "123"), orders.DeliverOrder("o-1")
RETURN, CANCEL = orders.ReturnOrder("o-1", "does not fit"), orders.CancelOrder("o-1", "changed my mind")
HOLD, APPROVE = orders.HoldOrder("o-1", "let me see"), orders.ApproveOrder("o-1")
CONFIRM, REJECT = orders.ConfirmOrder("o-1"), orders.RejectOrder("o-1", "no")
REMOVE_MUGS = orders.RemoveOrderLine("o-1", "", "mug")
TIMEOUT = timedelta(days=4)
CHEAP, SUSPICIOUS = 10, 2_000
PATHS: dict[str, Sequence[Any]] = {
    "returned": (SHIP, DELIVER, RETURN),
    "cancelled": (CANCEL,),
    "held": (HOLD, APPROVE, CANCEL),
    "reviewed": (APPROVE, SHIP),
    "timed out": (TIMEOUT,),
    "edited": (REMOVE_MUGS, SHIP),
    "confirmed by hand": (CONFIRM, CANCEL),
    "rejected by hand": (REJECT,),
}
"""What people do, or the time that passes."""
STEPS = (
    *("", "assess", "hold_order", "reserve", "hold_money", "firm_stock", "firm_money", "confirm", "reject"),
    *("release_stock", "release_money", "commit_stock", "capture_money", "refund", "restock"),
)
"""The kind of step that is rejected until an operator retries; empty for none."""
NEXT = {
    "events first": ("event", "oldest"),
    "answers first": ("oldest", "event"),
    "latest answers first": ("latest", "event"),
}


class Path:
    """One order on a path, until nothing is left to do.

    Args:
        path: of PATHS.
        rejected: the kind of step that is rejected.
        next_: of NEXT.
        price: of each piece.
        early: the number of events and answers after which people act, also if more could come; 0 for all.
    """

    def __init__(self, path: str, rejected: str, next_: str, price: int, early: int) -> None:
        self.simulation = Simulation(money=20_000, price=price)
        self.simulation.rejections = {rejected: "NO_REASON"} if rejected else {}
        self.simulation.place_order()
        self._commands = list(PATHS[path])
        self._next, self._early = NEXT[next_], early

    def run(self) -> Iterator[None]:
        """Yield after each thing that happens."""
        for number in count(1):
            is_early = bool(self._early) and number > self._early
            if (is_early and self._act()) or self._advance() or self._act():
                yield
            else:
                return

    def _advance(self) -> bool:
        simulation = self.simulation
        for each in self._next:
            if each == "event":
                advanced = simulation.deliver_event()
            else:
                kind = simulation.pending[-1].name if each == "latest" and simulation.pending else ""
                advanced = simulation.answer_step(kind)
            if advanced:
                return True
        return False

    def _act(self) -> bool:
        if not self._commands:
            return False
        command = self._commands.pop(0)
        if isinstance(command, timedelta):
            self.simulation.advance_time(command)
        else:
            with suppress(Rejected):
                self.simulation.execute(command)
        return True

    def operate(self, action: str) -> None:
        simulation = self.simulation
        if action == "retry":
            simulation.rejections = {}
            simulation.retry(FULFILMENT.name, "o-1")
        else:
            before = simulation.instance.state
            try:
                simulation.abort(FULFILMENT.name, "o-1", "enough")
            except ActionNotPossible as error:
                assert str(error).startswith("cannot abort: ")
                assert simulation.instance.state == before

    def end(self) -> None:
        """End the order, as the documentation tells an operator to."""
        simulation = self.simulation
        simulation.rejections = {}
        for _ in range(3):
            simulation.settle()
            if simulation.instance.status.blocked_reason:
                if simulation.order_status == "CONFIRMED":
                    simulation.execute(CANCEL)
                    simulation.settle()
                simulation.retry(FULFILMENT.name, "o-1")
            simulation.advance_time(TIMEOUT)
        simulation.settle()
        status = simulation.instance.status
        assert not status.blocked_reason
        assert status.ended or simulation.order_status == "CONFIRMED"


def operate_everywhere(*arguments: Any) -> None:
    """Run a path as often as it has points, with each action of an operator at one of them."""
    for action in ("retry", "abort"):
        for point in count():
            path = Path(*arguments)
            happened = path.run()
            reached = sum(1 for _, _ in zip(range(point + 1), happened, strict=False))
            if reached <= point:
                break
            path.operate(action)
            for _ in happened:
                pass
            path.end()


@pytest.mark.parametrize(
    ("path", "rejected", "next_", "price", "early"),
    [
        ("returned", "commit_stock", "events first", CHEAP, 0),
        ("returned", "capture_money", "latest answers first", CHEAP, 0),
        ("held", "", "answers first", CHEAP, 3),
        ("confirmed by hand", "release_money", "events first", CHEAP, 6),
        ("reviewed", "hold_order", "answers first", SUSPICIOUS, 0),
    ],
)
def test_an_operator_may_act_at_every_point_of_a_path(
    path: str, rejected: str, next_: str, price: int, early: int
) -> None:
    operate_everywhere(path, rejected, next_, price, early)


@pytest.mark.long
@pytest.mark.parametrize("path", PATHS)
def test_an_operator_may_act_at_every_point_of_every_path(path: str) -> None:
    for arguments in product(STEPS, NEXT, (CHEAP, SUSPICIOUS), (0, 5)):
        operate_everywhere(path, *arguments)
