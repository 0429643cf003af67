"""A model of purchase orders for stateful tests, and a machine that compares the domain with it."""

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from command_server.contexts.inventory.domain.messages import DiscontinueProduct
from command_server.contexts.inventory.domain.purchase_messages import (
    ApprovePurchaseOrder,
    CancelPurchaseOrder,
    ClosePurchaseOrder,
    SendToSupplier,
)
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from tests.support.builders.purchasing import DAY, OTHER_SKU, get_order, goods, make_market, order
from tests.support.builders.warehouse import SKU, WAREHOUSE, get_stock

SKUS, ORDER_IDS, CALLERS = (SKU, OTHER_SKU), ("p-1", "p-2"), ("ada", "bob")
orders, callers = st.sampled_from(ORDER_IDS), st.sampled_from(CALLERS)
notes = st.integers(1, 4).map(str)
quantities = st.dictionaries(st.sampled_from(SKUS), st.sampled_from([1, 5, 9, 10, 11, 20]), min_size=1)
Lines = dict[str, int]


class PurchasingMachine(RuleBasedStateMachine):
    """Executes random commands and keeps the expected state of every order in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.world = make_market()
        self.orders: dict[str, dict[str, Any]] = {}
        self.discontinued: set[str] = set()
        self.on_hand: Counter[str] = Counter()

    def execute(self, command: Any, allowed: bool) -> bool:
        try:
            self.world.execute(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        return True

    def state(self, id_: str) -> str:
        return str(self.orders[id_]["state"]) if id_ in self.orders else "NONE"

    @rule(id_=orders, lines=quantities, price=st.sampled_from([1, 500, 1_000]), caller=callers)
    def raise_order(self, id_: str, lines: Lines, price: int, caller: str) -> None:
        before = self.orders.get(id_)
        same = before is not None and (list(before["lines"].items()), before["price"]) == (
            list(lines.items()),
            price,
        )
        possible = before is None and not self.discontinued.intersection(lines)
        command = order(id_, price=Money("EUR", price), caller=caller, lines=tuple(lines.items()))
        if self.execute(command, allowed=same or possible) and possible:
            is_large = sum(lines.values()) * price > 10_000
            self.orders[id_] = {
                "state": "RAISED" if is_large else "APPROVED",
                "lines": lines,
                "price": price,
                "caller": caller,
                "received": Counter(),
                "deliveries": {},
            }

    @rule(id_=orders, caller=callers)
    def approve(self, id_: str, caller: str) -> None:
        state = self.state(id_)
        is_other = state == "RAISED" and self.orders[id_]["caller"] != caller
        allowed = is_other or state in ("APPROVED", "SENT", "RECEIVED", "CLOSED")
        if self.execute(ApprovePurchaseOrder(id_, caller=caller), allowed) and is_other:
            self.orders[id_]["state"] = "APPROVED"

    @rule(id_=orders)
    def send(self, id_: str) -> None:
        if self.execute(SendToSupplier(id_, DAY), allowed=self.state(id_) in ("APPROVED", "SENT")):
            self.orders[id_]["state"] = "SENT"

    @rule(id_=orders, note=notes, lines=quantities)
    def receive(self, id_: str, note: str, lines: Lines) -> None:
        known = self.orders.get(id_, {"deliveries": {}, "lines": {}, "received": Counter()})
        counted = {sku: known["deliveries"].get((note, sku), count) for sku, count in lines.items()}
        fresh = {sku: count for sku, count in lines.items() if (note, sku) not in known["deliveries"]}
        fits = all(
            sku in known["lines"]
            and sku not in self.discontinued
            and known["received"][sku] + count <= known["lines"][sku] * 11 // 10
            for sku, count in fresh.items()
        )
        open_ = self.state(id_) in ("SENT", "RECEIVED") and fits
        allowed = id_ in self.orders and counted == lines and (open_ or not fresh)
        if self.execute(goods(note, *lines.items(), id_=id_), allowed):
            known["deliveries"] |= {(note, sku): count for sku, count in fresh.items()}
            known["received"].update(fresh)
            self.on_hand.update(fresh)
            if fresh and all(known["received"][sku] >= count for sku, count in known["lines"].items()):
                known["state"] = "RECEIVED"

    @rule(id_=orders)
    def close(self, id_: str) -> None:
        state = self.state(id_)
        some = id_ in self.orders and self.orders[id_]["received"].total() > 0
        allowed = state == "CLOSED" or (state in ("SENT", "RECEIVED") and some)
        if self.execute(ClosePurchaseOrder(id_, "enough"), allowed):
            self.orders[id_]["state"] = "CLOSED"

    @rule(id_=orders)
    def cancel(self, id_: str) -> None:
        state = self.state(id_)
        none = id_ in self.orders and not self.orders[id_]["received"]
        allowed = state == "CANCELLED" or (state in ("RAISED", "APPROVED", "SENT") and none)
        if self.execute(CancelPurchaseOrder(id_, "enough"), allowed):
            self.orders[id_]["state"] = "CANCELLED"

    @rule(chance=st.integers(0, 9))
    def discontinue(self, chance: int) -> None:
        if not chance:
            self.world.execute(DiscontinueProduct(OTHER_SKU))
            self.discontinued.add(OTHER_SKU)

    @invariant()
    def everything_matches_the_model(self) -> None:
        for sku in SKUS:
            assert get_stock(self.world, sku, WAREHOUSE).on_hand == self.on_hand[sku]
        for id_ in ORDER_IDS:
            found = get_order(self.world, id_)
            assert found.status.name == self.state(id_)
            if id_ in self.orders:
                received = self.orders[id_]["received"]
                assert found.received == tuple(received[line.sku] for line in found.lines)

    def teardown(self) -> None:
        self.world.assert_snapshots_decode()
