"""A plain model of inventory, and a machine that asks the domain for anything, as time passes."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_server.contexts.inventory import CONTEXT
from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    CommitReservation,
    CompleteTransfer,
    DiscontinueProduct,
    ExpireReservation,
    FirmReservation,
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
from tests.support.harness.world import World

SKUS, WAREHOUSES = ("tea", "mug"), ("w-1", "w-2")
PLACES = [(sku, warehouse) for sku in SKUS for warehouse in WAREHOUSES]
Place = tuple[str, str]

skus, places = some.sampled_from(SKUS), some.sampled_from(PLACES)
pieces, ids = some.integers(1, 12), some.integers(1, 4).map(str)
lines = some.dictionaries(places, some.integers(1, 5), min_size=1, max_size=3)


class Machine(RuleBasedStateMachine):
    """What is where, as a storekeeper with a slate would note it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*CONTEXT.deciders)
        self.known: set[str] = set()
        self.ended: set[str] = set()
        self.here: dict[Place, int] = {}
        self.coming: dict[Place, int] = {}
        self.points: dict[Place, int] = {}
        self.deliveries: dict[tuple[Place, str], int] = {}
        self.reservations: dict[str, dict[str, Any]] = {}
        self.transfers: dict[str, dict[str, Any]] = {}
        self.alerts: dict[Place, bool] = {}

    def ask(self, command: Any, allowed: bool) -> bool:
        """Execute a command; it must be refused exactly where the slate says so."""
        try:
            events = self.world.do(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        for event in events:
            if type(event).__name__ in ("ReorderAlertRaised", "ReorderAlertCleared"):
                raised = type(event).__name__ == "ReorderAlertRaised"
                place = (event.sku, event.warehouse_id)
                assert self.alerts.get(place, False) != raised, "an alert is raised once for each crossing"
                self.alerts[place] = raised
        return True

    def taken(self, place: Place) -> int:
        held = (r for r in self.reservations.values() if r["state"] in ("open", "firm"))
        return sum(reservation["lines"].get(place, 0) for reservation in held)

    def free(self, place: Place) -> int:
        return self.here.get(place, 0) - self.taken(place)

    @initialize()
    def begin(self) -> None:
        for sku in SKUS:
            self.register(sku)
            self.receive((sku, "w-1"), 10, "1")

    @rule(sku=skus)
    def register(self, sku: str) -> None:
        self.ask(RegisterProduct(sku, sku, 2), allowed=True)
        self.known.add(sku)

    @rule(sku=skus)
    def discontinue(self, sku: str) -> None:
        if self.ask(DiscontinueProduct(sku), allowed=sku in self.known):
            self.ended.add(sku)

    @rule(place=places, count=pieces, note=ids)
    def receive(self, place: Place, count: int, note: str) -> None:
        before = self.deliveries.get((place, note))
        fresh = before is None and place[0] in self.known and place[0] not in self.ended
        if self.ask(ReceiveStock(*place, count, "po", note), allowed=fresh or before == count) and fresh:
            self.deliveries[place, note] = count
            self.here[place] = self.here.get(place, 0) + count
            self.points.setdefault(place, 2)

    @rule(place=places, count=some.integers(0, 20))
    def count(self, place: Place, count: int) -> None:
        if self.ask(
            AdjustStock(*place, count, "counted"),
            allowed=place in self.points and (count >= self.taken(place)),
        ):
            self.here[place] = count

    @rule(place=places, point=some.integers(0, 8))
    def set_point(self, place: Place, point: int) -> None:
        if self.ask(SetReorderPoint(*place, point), allowed=place in self.points):
            self.points[place] = point

    @rule(id_=ids, wanted=lines, minutes=some.integers(1, 60))
    def reserve(self, id_: str, wanted: dict[Place, int], minutes: int) -> None:
        asked = tuple(ReservationLine(*place, count) for place, count in wanted.items())
        deadline = self.world.now + timedelta(minutes=minutes)
        before = self.reservations.get(id_)
        same = before is not None and (list(before["lines"].items()), before["deadline"]) == (
            list(wanted.items()),
            deadline,
        )
        enough = before is None and all(self.free(place) >= count for place, count in wanted.items())
        if self.ask(ReserveStock(id_, asked, deadline), allowed=same or enough) and enough:
            self.reservations[id_] = {"state": "open", "lines": wanted, "deadline": deadline}

    def state_of(self, id_: str) -> str:
        reservation = self.reservations.get(id_)
        if reservation is None:
            return "none"
        late = reservation["state"] == "open" and reservation["deadline"] <= self.world.now
        return "late" if late else str(reservation["state"])

    @rule(id_=ids)
    def firm(self, id_: str) -> None:
        if self.ask(FirmReservation(id_), allowed=self.state_of(id_) in ("open", "firm")):
            self.reservations[id_]["state"] = "firm"

    @rule(id_=ids)
    def release(self, id_: str) -> None:
        allowed = self.state_of(id_) in ("open", "late", "firm", "released")
        if self.ask(ReleaseReservation(id_, "enough"), allowed=allowed):
            self.reservations[id_]["state"] = "released"

    @rule(id_=ids)
    def expire(self, id_: str) -> None:
        state = self.state_of(id_)
        if self.ask(ExpireReservation(id_), allowed=state not in ("none", "open")) and state == "late":
            self.reservations[id_]["state"] = "released"

    @rule(id_=ids)
    def commit(self, id_: str) -> None:
        state = self.state_of(id_)
        if self.ask(CommitReservation(id_), allowed=state in ("open", "firm", "committed")):
            reservation = self.reservations[id_]
            if state != "committed":
                for place, count in reservation["lines"].items():
                    self.here[place] -= count
            reservation["state"] = "committed"

    @rule(id_=ids, sku=skus, ends=some.tuples(*[some.sampled_from(WAREHOUSES)] * 2), count=pieces)
    def send(self, id_: str, sku: str, ends: tuple[str, str], count: int) -> None:
        wanted = {"sku": sku, "ends": ends, "count": count}
        before = self.transfers.get(id_)
        same = before is not None and {key: before[key] for key in wanted} == wanted
        start, end = (sku, ends[0]), (sku, ends[1])
        possible = before is None and start != end and sku in self.known and self.free(start) >= count
        if self.ask(TransferStock(id_, sku, *ends, count), allowed=same or possible) and possible:
            self.transfers[id_] = {**wanted, "done": False}
            self.here[start] -= count
            self.coming[end] = self.coming.get(end, 0) + count
            self.points.setdefault(end, 2)

    @rule(id_=ids)
    def arrive(self, id_: str) -> None:
        transfer = self.transfers.get(id_)
        if (
            self.ask(CompleteTransfer(id_), allowed=transfer is not None)
            and transfer
            and not transfer["done"]
        ):
            end = (transfer["sku"], transfer["ends"][1])
            self.coming[end] -= transfer["count"]
            self.here[end] = self.here.get(end, 0) + transfer["count"]
            transfer["done"] = True

    @rule(minutes=some.integers(1, 90))
    def wait(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    @invariant()
    def everything_is_where_the_slate_says(self) -> None:
        for place in PLACES:
            stock = self.world.state(stock_stream(*place))
            expected = (self.here.get(place, 0), self.taken(place), self.coming.get(place, 0))
            assert (stock.on_hand, stock.reserved, stock.in_transit) == expected
            assert 0 <= stock.reserved <= stock.on_hand
            alive = place in self.points and place[0] not in self.ended
            low = alive and self.free(place) <= self.points[place]
            assert (stock.alerted, self.alerts.get(place, False)) == (low, low)

    def teardown(self) -> None:
        self.world.reloaded()
