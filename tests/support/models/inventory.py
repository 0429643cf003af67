"""A model of inventory for stateful tests, and a machine that compares the domain with it."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_server.contexts.inventory import CONTEXT
from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    CommitReservation,
    CompleteTransfer,
    DiscontinueProduct,
    ExpireReservation,
    FirmReservation,
    ReceiptReason,
    ReceiveStock,
    RegisterProduct,
    ReleaseReservation,
    ReservationLine,
    ReserveStock,
    SetReorderPoint,
    TransferStock,
)
from command_server.contexts.inventory.domain.stock import stock_stream
from command_server.kernel.decider import Rejected
from diptych_testing.world import World

SKUS, WAREHOUSES = ("tea", "mug"), ("w-1", "w-2")
STOCK_KEYS = [(sku, warehouse) for sku in SKUS for warehouse in WAREHOUSES]
StockKey = tuple[str, str]
"""Sku and warehouse id."""

skus, stock_keys = st.sampled_from(SKUS), st.sampled_from(STOCK_KEYS)
pieces, ids = st.integers(1, 12), st.integers(1, 4).map(str)
requested_lines = st.dictionaries(stock_keys, st.integers(1, 5), min_size=1, max_size=3)


class InventoryMachine(RuleBasedStateMachine):
    """Executes random commands and keeps the expected quantities of every stock in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*CONTEXT.deciders)
        self.registered: set[str] = set()
        self.discontinued: set[str] = set()
        self.on_hand: dict[StockKey, int] = {}
        self.in_transit: dict[StockKey, int] = {}
        self.reorder_points: dict[StockKey, int] = {}
        self.deliveries: dict[tuple[StockKey, str], int] = {}
        self.reservations: dict[str, dict[str, Any]] = {}
        self.transfers: dict[str, dict[str, Any]] = {}
        self.alerts: dict[StockKey, bool] = {}

    def execute(self, command: Any, allowed: bool) -> bool:
        """Execute a command and assert that it is rejected unless `allowed`; return `allowed`."""
        try:
            events = self.world.execute(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        for event in events:
            if type(event).__name__ in ("ReorderAlertRaised", "ReorderAlertCleared"):
                raised = type(event).__name__ == "ReorderAlertRaised"
                key = (event.sku, event.warehouse_id)
                assert self.alerts.get(key, False) != raised, "an alert is raised once for each crossing"
                self.alerts[key] = raised
        return True

    def count_reserved(self, key: StockKey) -> int:
        active = (r for r in self.reservations.values() if r["state"] in ("open", "firm"))
        return sum(reservation["lines"].get(key, 0) for reservation in active)

    def count_available(self, key: StockKey) -> int:
        return self.on_hand.get(key, 0) - self.count_reserved(key)

    @initialize()
    def begin(self) -> None:
        for sku in SKUS:
            self.register(sku)
            self.receive((sku, "w-1"), 10, "1")

    @rule(sku=skus)
    def register(self, sku: str) -> None:
        self.execute(RegisterProduct(sku, sku, 2), allowed=True)
        self.registered.add(sku)

    @rule(sku=skus)
    def discontinue(self, sku: str) -> None:
        if self.execute(DiscontinueProduct(sku), allowed=sku in self.registered):
            self.discontinued.add(sku)

    @rule(key=stock_keys, count=pieces, note=ids)
    def receive(self, key: StockKey, count: int, note: str) -> None:
        before = self.deliveries.get((key, note))
        is_new = before is None and key[0] in self.registered and key[0] not in self.discontinued
        if (
            self.execute(
                ReceiveStock(*key, count, ReceiptReason.OPENING, note), allowed=is_new or before == count
            )
            and is_new
        ):
            self.deliveries[key, note] = count
            self.on_hand[key] = self.on_hand.get(key, 0) + count
            self.reorder_points.setdefault(key, 2)

    @rule(key=stock_keys, count=st.integers(0, 20))
    def count(self, key: StockKey, count: int) -> None:
        if self.execute(
            AdjustStock(*key, count, "counted"),
            allowed=key in self.reorder_points and (count >= self.count_reserved(key)),
        ):
            self.on_hand[key] = count

    @rule(key=stock_keys, point=st.integers(0, 8))
    def set_point(self, key: StockKey, point: int) -> None:
        if self.execute(SetReorderPoint(*key, point), allowed=key in self.reorder_points):
            self.reorder_points[key] = point

    @rule(id_=ids, requested=requested_lines, minutes=st.integers(1, 60))
    def reserve(self, id_: str, requested: dict[StockKey, int], minutes: int) -> None:
        lines = tuple(ReservationLine(*key, count) for key, count in requested.items())
        deadline = self.world.now + timedelta(minutes=minutes)
        before = self.reservations.get(id_)
        same = before is not None and (list(before["lines"].items()), before["deadline"]) == (
            list(requested.items()),
            deadline,
        )
        enough = before is None and all(
            self.count_available(key) >= count for key, count in requested.items()
        )
        if self.execute(ReserveStock(id_, lines, deadline), allowed=same or enough) and enough:
            self.reservations[id_] = {"state": "open", "lines": requested, "deadline": deadline}

    def get_state(self, id_: str) -> str:
        reservation = self.reservations.get(id_)
        if reservation is None:
            return "none"
        late = reservation["state"] == "open" and reservation["deadline"] <= self.world.now
        return "late" if late else str(reservation["state"])

    @rule(id_=ids)
    def firm(self, id_: str) -> None:
        if self.execute(FirmReservation(id_), allowed=self.get_state(id_) in ("open", "firm")):
            self.reservations[id_]["state"] = "firm"

    @rule(id_=ids)
    def release(self, id_: str) -> None:
        allowed = self.get_state(id_) in ("open", "late", "firm", "released")
        if self.execute(ReleaseReservation(id_, "enough"), allowed=allowed):
            self.reservations[id_]["state"] = "released"

    @rule(id_=ids)
    def expire(self, id_: str) -> None:
        state = self.get_state(id_)
        if self.execute(ExpireReservation(id_), allowed=state not in ("none", "open")) and state == "late":
            self.reservations[id_]["state"] = "released"

    @rule(id_=ids)
    def commit(self, id_: str) -> None:
        state = self.get_state(id_)
        if self.execute(CommitReservation(id_), allowed=state in ("open", "firm", "committed")):
            reservation = self.reservations[id_]
            if state != "committed":
                for key, count in reservation["lines"].items():
                    self.on_hand[key] -= count
            reservation["state"] = "committed"

    @rule(id_=ids, sku=skus, route=st.tuples(*[st.sampled_from(WAREHOUSES)] * 2), count=pieces)
    def send(self, id_: str, sku: str, route: tuple[str, str], count: int) -> None:
        requested = {"sku": sku, "route": route, "count": count}
        before = self.transfers.get(id_)
        same = before is not None and {key: before[key] for key in requested} == requested
        source, destination = (sku, route[0]), (sku, route[1])
        possible = (
            before is None
            and source != destination
            and sku in self.registered
            and self.count_available(source) >= count
        )
        if self.execute(TransferStock(id_, sku, *route, count), allowed=same or possible) and possible:
            self.transfers[id_] = {**requested, "completed": False}
            self.on_hand[source] -= count
            self.in_transit[destination] = self.in_transit.get(destination, 0) + count
            self.reorder_points.setdefault(destination, 2)

    @rule(id_=ids)
    def arrive(self, id_: str) -> None:
        transfer = self.transfers.get(id_)
        if (
            self.execute(CompleteTransfer(id_), allowed=transfer is not None)
            and transfer
            and not transfer["completed"]
        ):
            destination = (transfer["sku"], transfer["route"][1])
            self.in_transit[destination] -= transfer["count"]
            self.on_hand[destination] = self.on_hand.get(destination, 0) + transfer["count"]
            transfer["completed"] = True

    @rule(minutes=st.integers(1, 90))
    def wait(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    @invariant()
    def every_stock_matches_the_model(self) -> None:
        for key in STOCK_KEYS:
            stock = self.world.state(stock_stream(*key))
            expected = (self.on_hand.get(key, 0), self.count_reserved(key), self.in_transit.get(key, 0))
            assert (stock.on_hand, stock.reserved, stock.in_transit) == expected
            assert 0 <= stock.reserved <= stock.on_hand
            supplied = key in self.reorder_points and key[0] not in self.discontinued
            low = supplied and self.count_available(key) <= self.reorder_points[key]
            assert (stock.alerted, self.alerts.get(key, False)) == (low, low)

    def teardown(self) -> None:
        self.world.assert_snapshots_decode()
