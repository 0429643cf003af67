"""Simulates purchases in memory: the real sagas on the real rules of ticketing and banking."""

from datetime import timedelta
from typing import Any

from diptych.ticketing.v1 import query_service_pb2 as queries
from diptych.ticketing.v1.types_pb2 import Booking

from command_server.contexts import banking, ticketing
from command_server.contexts.banking.domain.mandate_messages import GrantMandate
from command_server.contexts.banking.domain.messages import Deposit, OpenAccount
from command_server.contexts.ticketing.domain.booking import Status
from command_server.contexts.ticketing.domain.messages import BuySeats
from command_server.kernel.money import Money
from diptych_testing.saga_simulation import SagaSimulation
from process_manager.groups.instance import Instance
from process_manager.sagas.purchase import PURCHASES
from process_manager.sagas.ticketing import SAGAS
from tests.support.builders.theatre import draw, get_booking, get_show, hold, schedule

CONTEXTS = (ticketing.CONTEXT, banking.CONTEXT)


class Simulation(SagaSimulation):
    """The show s-1, the account a-1, and the bookings of seats at 20 EUR that a test makes."""

    def __init__(self, *, money: int = 100) -> None:
        super().__init__([PURCHASES, *SAGAS], CONTEXTS, {queries.ListTicketsRequest: self._list_tickets})
        self.unlisted: set[str] = set()
        """Bookings that the read side does not know as sold yet."""
        self.execute(schedule(), OpenAccount("a-1", "ada", "EUR", None, None))
        if money:
            self.execute(Deposit("a-1", Money("EUR", money), "pay"))

    def buy(self, booking_id: str = "b-1", seats: int = 2, buyer: str = "ada") -> None:
        deadline = self.world.now + timedelta(minutes=10)
        if buyer != "ada":
            limit = Money("EUR", 1_000)
            self.execute(GrantMandate("a-1", buyer, limit, limit, self.world.now + timedelta(days=1)))
        self.execute(hold(booking_id, seats, buyer=buyer, deadline=deadline), BuySeats(booking_id, "a-1"))

    def _list_tickets(self, request: Any) -> Any:
        sold = [
            Booking(booking_id=name.rpartition(".")[2])
            for name, state in self.world.states.items()
            if getattr(state, "status", None) is Status.SOLD
        ]
        listed = [each for each in sold if each.booking_id not in self.unlisted]
        return queries.ListTicketsResponse(bookings=listed[: request.page_size])

    def purchase(self, booking_id: str = "b-1") -> Instance:
        return self.find_instance("purchase.purchase", booking_id)

    def read(self, booking_id: str = "b-1") -> tuple[str, str, tuple[int, int], int]:
        """Return the statuses of a booking and its saga, the balance and held money, and the taken seats."""
        account = self.world.state("banking.account.a-1")
        return (
            get_booking(self.world, booking_id).status.value,
            self.purchase(booking_id).status.state,
            (account.balance.units, account.held.units),
            "".join(draw(self.world)).count("x"),
        )

    @property
    def sold(self) -> int:
        return get_show(self.world).sold
