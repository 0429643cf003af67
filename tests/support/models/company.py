"""Ordering, inventory, banking and the fulfilment of orders in memory: real rules, real sagas, no server.

A step is answered by the domain that it is for, once for each request id. What the test wants to go wrong
goes wrong on the way: a step may be refused, or executed while its answer is lost, or an event told late.
"""

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.types_pb2 import Order, ShippingGroup
from google.protobuf.descriptor_pool import Default

from command_server.contexts import banking, inventory, ordering
from command_server.contexts.banking.domain.messages import Deposit, OpenAccount
from command_server.contexts.inventory.domain.messages import ReceiveStock, RegisterProduct
from command_server.contexts.inventory.domain.stock import stock_stream
from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from contracts.envelope import RecordedEvent
from contracts.streams import stream_type
from process_manager.instance import Instance, Step
from process_manager.saga import Input, StepRejected, StepSucceeded, TimerFired
from process_manager.sagas.fulfilment import FULFILMENT
from runtime.codec import message_class
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World

CONTEXTS = (ordering.CONTEXT, inventory.CONTEXT, banking.CONTEXT)
KINDS = {
    f"/{name.rpartition('.')[0]}/{name.rpartition('.')[2]}": kind
    for context in CONTEXTS
    for name, kind in command_types(context).items()
}
TYPES = aggregate_types(CONTEXTS)
ORDER = "ordering.order.o-1"
HOME = orders.ShippingAddress("Ada", ("Main Street 1",), "10115", "Berlin", "DE")


class Company:
    """One order, its fulfilment, and what it needs."""

    def __init__(self, *, stock: int = 10, money: int = 100, price: int = 10) -> None:
        self.world = World(*(decider for context in CONTEXTS for decider in context.deciders))
        self.price = price
        self.saga = Instance(FULFILMENT, "o-1", FULFILMENT.initial)
        self.waiting: deque[Step] = deque()
        self.timers: dict[str, datetime] = {}
        self.sent: list[str] = []
        self.answers: dict[Any, Input] = {}
        self.earlier: list[Order] = []
        self.refuse: dict[str, str] = {}
        """Kind of step to the reason that it is refused for."""
        self._told = 0
        for sku in ("tea", "mug"):
            self.world.do(RegisterProduct(sku, sku, 0), ReceiveStock(sku, "w-1", stock, "po", "n"))
        self.world.do(OpenAccount("a-1", "ada", "EUR", None, None))
        if money:
            self.world.do(Deposit("a-1", Money("EUR", money), "pay"))

    def place(self, quantity: int = 2, address: orders.ShippingAddress = HOME) -> None:
        """Place an order of two lines, half of it tea."""
        lines = tuple(
            orders.OrderLine(sku, sku, quantity, Money("EUR", self.price)) for sku in ("tea", "mug")
        )
        group = orders.ShippingGroup("main", lines, address, "w-1")
        self.world.do(orders.PlaceOrder("o-1", "ada", (group,), "a-1"))

    def do(self, command: Any) -> None:
        """Let somebody else do something."""
        self.world.do(command)

    # What can happen next.

    def hear(self) -> bool:
        """Tell the saga the next event of its order; return whether there was one."""
        events = [event for name, event in self.world.history if name == ORDER]
        if self._told == len(events):
            return False
        kind, data = TYPES[stream_type(ORDER)].encode(events[self._told])
        self._told += 1
        recorded = RecordedEvent(ORDER, self._told, kind, data, self.world.now, self._told, {})
        assert self.saga.receive_event(recorded, self.world.now), self.saga.failed_input
        self._note()
        return True

    def answer(self) -> bool:
        """Send the step that has waited longest and tell its answer; return whether there was one."""
        if not self.waiting:
            return False
        step = self.waiting.popleft()
        self.saga.react_to(self._executed(step))
        self._note()
        return True

    def lose(self) -> bool:
        """Send the step that has waited longest, and lose its answer: it is sent again later."""
        if not self.waiting:
            return False
        self._executed(self.waiting[0])
        return True

    def wait(self, time: timedelta) -> None:
        """Let time pass, and timers run out."""
        self.world.now += time
        for name in [name for name, at in self.timers.items() if at <= self.world.now]:
            del self.timers[name]
            self.saga.react_to(TimerFired(name, self.world.now))
            self._note()

    def settle(self) -> None:
        """Let everything happen that can happen without time or people."""
        while self.hear() or self.answer():
            pass

    def tell(self, received: Input) -> None:
        self.saga.react_to(received)
        self._note()

    def _note(self) -> None:
        self.waiting += self.saga.steps
        self.sent += [step.step.partition("-")[0] for step in self.saga.steps]
        for name, at in self.saga.timers.items():
            if at is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = at
        self.saga.steps, self.saga.timers = [], {}

    def _executed(self, step: Step) -> Input:
        if step.request_id not in self.answers:
            self.answers[step.request_id] = self._execute(step)
        return self.answers[step.request_id]

    def _execute(self, step: Step) -> Input:
        now, kind = self.world.now, step.step.partition("-")[0]
        if reason := self.refuse.get(kind):
            return StepRejected(step.step, reason, {}, now)
        if step.method.endswith("/ListOrders"):
            return StepSucceeded(step.step, queries.ListOrdersResponse(orders=self.earlier), now)
        command = KINDS[step.method]
        request = message_class(_request_of(step.method)).FromString(step.request)
        expected = request.expected_version if "expected_version" in command.envelope else 0  # type: ignore[attr-defined]
        events = [event for name, event in self.world.history if name == ORDER]
        if expected and expected != len(events):
            return StepRejected(step.step, "VERSION_MISMATCH", {}, now)
        try:
            self.world.do(command.decode(request, "process-manager"))
        except Rejected as error:
            return StepRejected(step.step, error.reason, error.details, now)
        return StepSucceeded(step.step, None, now)

    # How it is.

    @property
    def order_status(self) -> str:
        return str(self.world.state(ORDER).status.value)

    @property
    def status(self) -> str:
        return self.saga.status.state

    def stock(self, sku: str = "tea") -> tuple[int, int]:
        """Return what is on hand and reserved."""
        found = self.world.state(stock_stream(sku, "w-1"))
        return found.on_hand, found.reserved

    def money(self) -> tuple[int, int]:
        """Return the account's balance and what of it is held."""
        found = self.world.state("banking.account.a-1")
        return found.balance.units, found.held.units


def _request_of(method: str) -> Any:
    service, _, name = method[1:].partition("/")
    return Default().FindServiceByName(service).methods_by_name[name].input_type


def earlier_order(minutes: int, address: orders.ShippingAddress = HOME) -> Order:
    """Return an order of the same customer, placed so many minutes before."""
    order = Order(order_id=f"o-{minutes}-before")
    order.place_time.FromDatetime((NOW - timedelta(minutes=minutes)).astimezone(UTC))
    order.shipping_groups.append(ShippingGroup())
    to = order.shipping_groups[0].shipping_address
    to.recipient, to.postal_code = address.recipient, address.postal_code
    to.locality, to.region_code = address.locality, address.region_code
    to.address_lines.extend(address.address_lines)
    return order
