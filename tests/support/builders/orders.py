"""Orders for tests of ordering's rules: a history for every status, and one command of each type."""

from command_server.contexts.ordering.domain import messages
from command_server.contexts.ordering.domain.messages import (
    AddOrderLine,
    ApproveOrder,
    CancelOrder,
    ChangeShippingAddress,
    ConfirmOrder,
    DeliverOrder,
    HoldOrder,
    OrderApproved,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderHeld,
    OrderLine,
    OrderPlaced,
    OrderRejected,
    OrderReturned,
    OrderShipped,
    PersonalData,
    PlacedGroup,
    PlaceOrder,
    RejectOrder,
    RemoveOrderLine,
    ReturnOrder,
    ShipOrder,
    ShippingAddress,
    ShippingGroup,
)
from command_server.contexts.ordering.domain.order import Status
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW

ADDRESS = ShippingAddress("Ada", ("Main Street 1",), "12345", "Town", "DE")
ELSEWHERE = ShippingAddress("Ada", ("Side Street 2",), "54321", "Village", "DE")
LINE = OrderLine("sku-1", "A thing", 3, Money("EUR", 9, 990_000_000))
SECOND = OrderLine("sku-2", "Another thing", 1, Money("EUR", 5))
GROUP = ShippingGroup("main", (LINE, SECOND), ADDRESS, "w-1")
OWN_PRICES = frozenset({"ordering.own-prices"})
"""The scope of a caller whose lines need no quotes."""
PLACE = PlaceOrder("o-1", "c-1", (GROUP,), "a-1", scopes=OWN_PRICES)
PLACED = OrderPlaced(
    "o-1",
    "c-1",
    (PlacedGroup("main", (LINE, SECOND), "w-1", PersonalData("c-1", ADDRESS)),),
    Money("EUR", 34, 970_000_000),
    "a-1",
    NOW,
)
HELD = OrderHeld("o-1", "looks odd", NOW)
APPROVED = OrderApproved("o-1", NOW)
REJECTED = OrderRejected("o-1", "is odd", NOW)
CONFIRMED = OrderConfirmed("o-1", NOW)
SHIPPED = OrderShipped("o-1", "Swift", "S-17", NOW)
DELIVERED = OrderDelivered("o-1", NOW)
RETURNED = OrderReturned("o-1", "too small", NOW, "c-1")
CANCELLED = OrderCancelled("o-1", "changed my mind", NOW, "c-1")

HISTORIES: dict[Status, tuple[messages.Event, ...]] = {
    Status.NONE: (),
    Status.PLACED: (PLACED,),
    Status.HELD: (PLACED, HELD),
    Status.CONFIRMED: (PLACED, CONFIRMED),
    Status.SHIPPED: (PLACED, CONFIRMED, SHIPPED),
    Status.DELIVERED: (PLACED, CONFIRMED, SHIPPED, DELIVERED),
    Status.RETURNED: (PLACED, CONFIRMED, SHIPPED, DELIVERED, RETURNED),
    Status.REJECTED: (PLACED, REJECTED),
    Status.CANCELLED: (PLACED, CANCELLED),
}
"""Events that bring an order into each status."""

COMMANDS: tuple[messages.Command, ...] = (
    PLACE,
    AddOrderLine("o-1", "", OrderLine("sku-3", "A third thing", 1, Money("EUR", 1)), scopes=OWN_PRICES),
    RemoveOrderLine("o-1", "", "sku-2"),
    ChangeShippingAddress("o-1", "", ELSEWHERE),
    HoldOrder("o-1", "looks odd"),
    ApproveOrder("o-1"),
    RejectOrder("o-1", "is odd"),
    ConfirmOrder("o-1"),
    ShipOrder("o-1", "Swift", "S-17"),
    DeliverOrder("o-1"),
    ReturnOrder("o-1", "too small"),
    CancelOrder("o-1", "changed my mind"),
)
"""One command of each type. Each one changes an order in any status that allows its type."""
