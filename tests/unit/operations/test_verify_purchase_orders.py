"""The independent fold of purchase orders: equal to the other folds, and strict about contradictions."""

from typing import Any

import pytest
from diptych.inventory.v1 import events_pb2
from diptych.inventory.v1.types_pb2 import DeliveredLine, PurchaseLine
from google.type.money_pb2 import Money

from command_server.contexts.inventory.domain.messages import ReorderTerms
from command_server.contexts.inventory.domain.purchase_messages import (
    CancelPurchaseOrder,
    ClosePurchaseOrder,
    SetReorderTerms,
)
from command_server.kernel.money import Money as DomainMoney
from contracts.envelope import RecordedEvent
from diptych_testing import folds
from diptych_testing.scenario import NOW
from operations.verify.contexts.inventory.purchase_order import fold_order
from operations.verify.model import Event
from tests.support.builders.purchasing import APPROVE, LARGE, OTHER_SKU, SEND, goods, make_market, order
from tests.support.builders.warehouse import SKU, WAREHOUSE, reserve

LINES = [PurchaseLine(sku="tea", quantity=10, unit_price=Money(currency_code="EUR", units=2))]
RAISED = events_pb2.PurchaseOrderRaised(lines=LINES, total=Money(currency_code="EUR", units=20))
SENT = events_pb2.PurchaseOrderSent(expected_on="2026-11-23")


def test_all_folds_are_the_same_at_every_step() -> None:
    world = make_market()
    for command in (
        LARGE,
        APPROVE,
        SEND,
        goods("n-0", (OTHER_SKU, 2)),
        goods("n-1", (SKU, 22)),
        SetReorderTerms(SKU, WAREHOUSE, ReorderTerms("tea-house", 50, DomainMoney("EUR", 2))),
        reserve("r-1", 22),
        goods("n-1", (SKU, 22), (OTHER_SKU, 3)),
        ClosePurchaseOrder("p-1", "over"),
        SetReorderTerms(SKU, WAREHOUSE, None),
        order("p-2"),
        CancelPurchaseOrder("p-2", "over"),
    ):
        assert world.execute(command)
        folds.compare(world)
    world.assert_snapshots_decode()


def received(quantity: int, *, complete: bool, sku: str = "tea") -> events_pb2.GoodsReceived:
    return events_pb2.GoodsReceived(lines=[DeliveredLine(sku=sku, quantity=quantity)], complete=complete)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((SENT,), "cannot be version 1"),
        ((RAISED, SENT, received(9, complete=True)), "complete of GoodsReceived is True"),
        ((RAISED, SENT, received(10, complete=False)), "complete of GoodsReceived is False"),
        ((RAISED, SENT, received(12, complete=True)), "too many pieces of tea"),
        ((RAISED, SENT, received(1, complete=False, sku="mug")), "mug was not ordered"),
        (
            (events_pb2.PurchaseOrderRaised(lines=LINES, total=Money(currency_code="EUR", units=19)),),
            "the sum of the lines",
        ),
        (
            (events_pb2.PurchaseOrderRaised(lines=LINES, total=Money(currency_code="USD", units=20)),),
            "the total is",
        ),
    ],
)
def test_events_that_contradict_each_other_cannot_be_folded(messages: Any, problem: str) -> None:
    events = [
        Event(RecordedEvent("s", n, message.DESCRIPTOR.full_name, b"", NOW, n, {}), message)
        for n, message in enumerate(messages, 1)
    ]
    with pytest.raises(ValueError, match=problem):
        fold_order(events)
