"""Simulates the fulfilment of one order in memory: the real saga on the real rules of the contexts."""

from copy import deepcopy
from typing import Any

from command_server.contexts import banking, fulfilment, inventory, ordering
from command_server.contexts.banking.domain.messages import Deposit, OpenAccount
from command_server.contexts.inventory.domain.messages import ReceiptReason, ReceiveStock, RegisterProduct
from command_server.contexts.inventory.domain.stock import stock_stream
from command_server.contexts.ordering.domain import messages as orders
from command_server.kernel.money import Money
from diptych_testing.saga_simulation import SagaSimulation, SentStep
from process_manager.groups.instance import Instance
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.builders.bank import clear_cases
from tests.support.builders.orders import OWN_PRICES

CONTEXTS = (ordering.CONTEXT, inventory.CONTEXT, banking.CONTEXT, fulfilment.CONTEXT)
ORDER = "ordering.order.o-1"
ACTIVITY = "ordering.customer_activity.ada"
ACQUIRING = ("reserve", "hold_money", "firm_stock", "firm_money", "commit_stock", "capture_money")
"""The kinds of steps that acquire something for an order."""
CONTENTS_EVENTS = (
    orders.OrderPlaced,
    orders.OrderLineAdded,
    orders.OrderLineRemoved,
    orders.ShippingAddressChanged,
)
HOME = orders.ShippingAddress("Ada", ("Main Street 1",), "10115", "Berlin", "DE")


class Simulation(SagaSimulation):
    """The order o-1, its saga instance, and the product and account that the order needs."""

    def __init__(self, *, stock: int = 10, money: int = 100, price: int = 10) -> None:
        super().__init__([FULFILMENT], CONTEXTS, answered_at_once=("record",))
        self.price = price
        self.supplied = (stock, money)
        """The pieces of tea and the money that came in."""
        for sku in ("tea", "mug"):
            self.execute(
                RegisterProduct(sku, sku, 0), ReceiveStock(sku, "w-1", stock, ReceiptReason.OPENING, "n")
            )
        self.execute(OpenAccount("a-1", "ada", "EUR", None, None))
        if money:
            self.execute(Deposit("a-1", Money("EUR", money), "pay"))
            clear_cases(self.world)

    def place_order(
        self, quantity: int = 2, address: orders.ShippingAddress = HOME, order_id: str = "o-1"
    ) -> None:
        """Place an order of two lines, tea and mugs."""
        lines = tuple(
            orders.OrderLine(sku, sku, quantity, Money("EUR", self.price)) for sku in ("tea", "mug")
        )
        group = orders.ShippingGroup("main", lines, address, "w-1")
        self.execute(orders.PlaceOrder(order_id, "ada", (group,), "a-1", scopes=OWN_PRICES))

    def proceed_to(self, step: str) -> None:
        """Answer steps and deliver assessments, but no events of orders, until this step is the next one."""
        while not self.pending or self.pending[0].name != step:
            assert self.deliver_event(stream=ACTIVITY) or self.answer_step()

    def copy(self) -> "Simulation":
        """Return a copy with the same past and another future."""
        world = self.world
        shared = [*self.sagas, *world.states.values(), *(event for _, event in world.history)]
        shared += [self._aggregates, self._executor._commands, world._deciders, world._aggregates]
        return deepcopy(self, {id(each): each for each in shared})

    def check_step(self, sent: SentStep) -> None:
        """Check that nothing is acquired for an order that is neither found harmless nor approved."""
        if any(map(sent.is_kind, ACQUIRING)):
            assert self._is_cleared(sent.instance.id), f"{sent.name} of an order that nobody cleared"

    def _is_cleared(self, order_id: str) -> bool:
        """Return whether the order, after the events that its saga has, is found harmless or approved."""
        stream = f"ordering.order.{order_id}"
        version = self._delivered[FULFILMENT.name, stream]
        events = [event for name, event in self.world.history if name == stream][:version]
        edited = max(number for number, event in enumerate(events, 1) if isinstance(event, CONTENTS_EVENTS))
        suspicions = [
            event.suspicions
            for name, event in self.world.history
            if name == ACTIVITY and event.order_id == order_id and edited <= event.order_version <= version
        ]
        is_approved = any(isinstance(event, orders.OrderApproved) for event in events[edited:])
        return is_approved or (bool(suspicions) and not any(suspicions))

    @property
    def last_order_event(self) -> Any:
        return [event for name, event in self.world.history if name == ORDER][-1]

    def supply(self) -> None:
        """Bring in what an order may lack."""
        stock, money = self.supplied
        self.execute(RegisterProduct("pot", "pot", 0))
        for sku in ("tea", "mug", "pot"):
            self.execute(ReceiveStock(sku, "w-1", 10, ReceiptReason.OPENING, f"n-{stock}"))
        self.execute(Deposit("a-1", Money("EUR", 1000), "pay"))
        self.supplied = (stock + 10, money + 1000)

    @property
    def instance(self) -> Instance:
        return self.find_instance(FULFILMENT.name, "o-1")

    @property
    def sent_kinds(self) -> list[str]:
        """The names of the steps without their numbers, in the order in which they were sent."""
        return [sent.name.partition("-")[0] for sent in self.sent]

    @property
    def order_status(self) -> str:
        return str(self.world.state(ORDER).status.value)

    @property
    def known_status(self) -> str:
        """The order's status as the saga knows it, for which a delivered order is still shipped."""
        status = str(self.instance.state.order_status)
        return self.order_status if (status, self.order_status) == ("SHIPPED", "DELIVERED") else status

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
