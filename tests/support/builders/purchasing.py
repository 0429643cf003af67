"""Purchase orders for tests of inventory's rules."""

from datetime import timedelta

from command_server.contexts.inventory.domain.messages import RegisterProduct
from command_server.contexts.inventory.domain.purchase_messages import (
    ApprovePurchaseOrder,
    DeliveredLine,
    PurchaseLine,
    RaisePurchaseOrder,
    ReceiveGoods,
    SendToSupplier,
)
from command_server.contexts.inventory.domain.purchase_order import PURCHASE_ORDER, PurchaseOrder
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from tests.support.builders.warehouse import SKU, WAREHOUSE, make_warehouse

OTHER_SKU, PRICE = "mug", Money("EUR", 2)
DAY = (NOW + timedelta(days=7)).date().isoformat()
APPROVE, SEND = ApprovePurchaseOrder("p-1", caller="bob"), SendToSupplier("p-1", DAY)


def order(
    id_: str = "p-1",
    *,
    price: Money = PRICE,
    caller: str = "ada",
    lines: tuple[tuple[str, int], ...] = ((SKU, 20), (OTHER_SKU, 5)),
) -> RaisePurchaseOrder:
    full_lines = tuple(PurchaseLine(sku, quantity, price) for sku, quantity in lines)
    return RaisePurchaseOrder(id_, "tea-house", WAREHOUSE, full_lines, caller=caller)


LARGE = order(price=Money("EUR", 401))
"""An order above the sum that needs an approval."""


def goods(note: str, *lines: tuple[str, int], id_: str = "p-1") -> ReceiveGoods:
    return ReceiveGoods(id_, note, tuple(DeliveredLine(*line) for line in lines))


def make_market() -> World:
    """Return a world with two registered products."""
    world = make_warehouse()
    world.execute(RegisterProduct(OTHER_SKU, "A mug", 0))
    return world


def make_sent_order() -> World:
    world = make_market()
    world.execute(order(), SEND)
    return world


def get_order(world: World, id_: str = "p-1") -> PurchaseOrder:
    found: PurchaseOrder = world.state(PURCHASE_ORDER.stream(id_))
    return found
