"""Simulates the fulfilment of one order in memory: the real saga on the real rules of the contexts.

The domain executes each request id once, as the command server does. A test can disturb the messages between
saga and domain: reject a step, execute a step but lose its reply, or deliver an event late.
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
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from process_manager.instance import Instance, Step
from process_manager.saga import Input, StepRejected, StepSucceeded, TimerFired
from process_manager.sagas.fulfilment import FULFILMENT
from runtime.codec import message_class

CONTEXTS = (ordering.CONTEXT, inventory.CONTEXT, banking.CONTEXT)
COMMAND_TYPES = {
    f"/{name.rpartition('.')[0]}/{name.rpartition('.')[2]}": command_type
    for context in CONTEXTS
    for name, command_type in command_types(context).items()
}
"""The command types by the paths of their methods."""
AGGREGATE_TYPES = aggregate_types(CONTEXTS)
ORDER = "ordering.order.o-1"
HOME = orders.ShippingAddress("Ada", ("Main Street 1",), "10115", "Berlin", "DE")


class Simulation:
    """The order o-1, its saga instance, and the product and account that the order needs."""

    def __init__(self, *, stock: int = 10, money: int = 100, price: int = 10) -> None:
        self.world = World(*(decider for context in CONTEXTS for decider in context.deciders))
        self.price = price
        self.instance = Instance(FULFILMENT, "o-1", FULFILMENT.initial)
        self.pending: deque[Step] = deque()
        self.timers: dict[str, datetime] = {}
        self.sent_kinds: list[str] = []
        self.replies: dict[Any, Input] = {}
        """The replies by request id."""
        self.earlier_orders: list[Order] = []
        self.rejections: dict[str, str] = {}
        """Kinds of steps to reject, with the reasons."""
        self._delivered = 0
        for sku in ("tea", "mug"):
            self.world.execute(RegisterProduct(sku, sku, 0), ReceiveStock(sku, "w-1", stock, "po", "n"))
        self.world.execute(OpenAccount("a-1", "ada", "EUR", None, None))
        if money:
            self.world.execute(Deposit("a-1", Money("EUR", money), "pay"))

    def place_order(self, quantity: int = 2, address: orders.ShippingAddress = HOME) -> None:
        """Place an order of two lines, tea and mugs."""
        lines = tuple(
            orders.OrderLine(sku, sku, quantity, Money("EUR", self.price)) for sku in ("tea", "mug")
        )
        group = orders.ShippingGroup("main", lines, address, "w-1")
        self.world.execute(orders.PlaceOrder("o-1", "ada", (group,), "a-1"))

    def execute(self, command: Any) -> None:
        """Execute a command of another caller."""
        self.world.execute(command)

    # What can happen next.

    def deliver_event(self) -> bool:
        """Deliver the next event of the order to the saga; return False if there is none."""
        events = [event for name, event in self.world.history if name == ORDER]
        if self._delivered == len(events):
            return False
        type_name, data = AGGREGATE_TYPES[stream_type(ORDER)].encode(events[self._delivered])
        self._delivered += 1
        event = RecordedEvent(ORDER, self._delivered, type_name, data, self.world.now, self._delivered, {})
        assert self.instance.receive_event(event, self.world.now), self.instance.failed_input
        self._collect_reaction()
        return True

    def answer_step(self) -> bool:
        """Execute the first pending step and deliver its reply; return False if there is none."""
        if not self.pending:
            return False
        step = self.pending.popleft()
        self.instance.react_to(self._execute_once(step))
        self._collect_reaction()
        return True

    def lose_reply(self) -> bool:
        """Execute the first pending step, but lose its reply: the step stays pending."""
        if not self.pending:
            return False
        self._execute_once(self.pending[0])
        return True

    def advance_time(self, duration: timedelta) -> None:
        """Advance the time, and fire the timers that expire."""
        self.world.now += duration
        for name in [name for name, at in self.timers.items() if at <= self.world.now]:
            del self.timers[name]
            self.deliver(TimerFired(name, self.world.now))

    def settle(self) -> None:
        """Deliver events and answer steps until none are left."""
        while self.deliver_event() or self.answer_step():
            pass

    def deliver(self, input_: Input) -> None:
        self.instance.react_to(input_)
        self._collect_reaction()

    def _collect_reaction(self) -> None:
        self.pending += self.instance.steps
        self.sent_kinds += [step.step.partition("-")[0] for step in self.instance.steps]
        for name, at in self.instance.timers.items():
            if at is None:
                self.timers.pop(name, None)
            else:
                self.timers[name] = at
        self.instance.steps, self.instance.timers = [], {}

    def _execute_once(self, step: Step) -> Input:
        if step.request_id not in self.replies:
            self.replies[step.request_id] = self._execute(step)
        return self.replies[step.request_id]

    def _execute(self, step: Step) -> Input:
        now, kind = self.world.now, step.step.partition("-")[0]
        if reason := self.rejections.get(kind):
            return StepRejected(step.step, reason, {}, now)
        if step.method.endswith("/ListOrders"):
            return StepSucceeded(step.step, queries.ListOrdersResponse(orders=self.earlier_orders), now)
        command_type = COMMAND_TYPES[step.method]
        request = message_class(_input_type_of(step.method)).FromString(step.request)
        checks_version = "expected_version" in command_type.request_fields
        expected = request.expected_version if checks_version else 0  # type: ignore[attr-defined]
        events = [event for name, event in self.world.history if name == ORDER]
        if expected and expected != len(events):
            return StepRejected(step.step, "VERSION_MISMATCH", {}, now)
        try:
            self.world.execute(command_type.decode(request, "process-manager"))
        except Rejected as error:
            return StepRejected(step.step, error.reason, error.details, now)
        return StepSucceeded(step.step, None, now)

    # The resulting state.

    @property
    def order_status(self) -> str:
        return str(self.world.state(ORDER).status.value)

    @property
    def saga_status(self) -> str:
        return self.instance.status.state

    def stock(self, sku: str = "tea") -> tuple[int, int]:
        """Return the quantities on hand and reserved."""
        stock = self.world.state(stock_stream(sku, "w-1"))
        return stock.on_hand, stock.reserved

    def money(self) -> tuple[int, int]:
        """Return the account's balance, and the part of it that is held."""
        account = self.world.state("banking.account.a-1")
        return account.balance.units, account.held.units


def _input_type_of(method: str) -> Any:
    service, _, name = method[1:].partition("/")
    return Default().FindServiceByName(service).methods_by_name[name].input_type


def earlier_order(minutes: int, address: orders.ShippingAddress = HOME) -> Order:
    """Return an order of the same customer, placed that many minutes before NOW."""
    order = Order(order_id=f"o-{minutes}-before")
    order.place_time.FromDatetime((NOW - timedelta(minutes=minutes)).astimezone(UTC))
    order.shipping_groups.append(ShippingGroup())
    shipping_address = order.shipping_groups[0].shipping_address
    shipping_address.recipient, shipping_address.postal_code = address.recipient, address.postal_code
    shipping_address.locality, shipping_address.region_code = address.locality, address.region_code
    shipping_address.address_lines.extend(address.address_lines)
    return order
