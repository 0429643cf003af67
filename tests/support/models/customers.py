"""A model of customers for stateful tests, and a machine that compares the domain with it."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from command_server.contexts.customers import CONTEXT
from command_server.contexts.customers.domain.customer import CONFIRMABLE_FOR, CUSTOMER
from command_server.contexts.customers.domain.email_claim import EMAIL_CLAIM
from command_server.contexts.customers.domain.messages import (
    ChangeName,
    CloseCustomer,
    ConfirmEmail,
    RemoveAddress,
)
from command_server.kernel.decider import Rejected
from contracts.key_ring import Purpose
from diptych_testing.world import World
from tests.support.builders.people import (
    ADA,
    BOB,
    CY,
    add_address,
    complete,
    register,
    request_email,
    rotate,
    sign_confirmation,
)
from tests.support.harness.keys import get_ring

people = st.sampled_from((ADA, BOB, CY))
emails = st.sampled_from(("a@x.example", "B@X.example", "c@x.example"))
names, address_ids = st.sampled_from(("Ada", "Bob")), st.sampled_from(("home", "work"))
ROTATED = rotate(Purpose.UNIQUE)


class CustomerMachine(RuleBasedStateMachine):
    """Executes random commands, before and after a rotation of the key, and keeps who has which address."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*CONTEXT.deciders)
        self.get_ring = get_ring
        self.customers: dict[str, dict[str, Any]] = {}

    def find_owner(self, email: str) -> str:
        """Return the open customer with an address, or an empty id."""
        owners = [
            id_ for id_, each in self.customers.items() if each["open"] and each["email"] == email.lower()
        ]
        assert len(owners) <= 1, "two customers have one address"
        return "".join(owners)

    def is_open(self, id_: str) -> bool:
        return id_ in self.customers and bool(self.customers[id_]["open"])

    def execute(self, command: Any, allowed: bool) -> bool:
        """Execute a command and assert that it is rejected unless `allowed`; return `allowed`."""
        try:
            self.world.execute(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        return True

    @rule(id_=people, email=emails, name=names)
    def register(self, id_: str, email: str, name: str) -> None:
        before = self.customers.get(id_)
        same = before is not None and (before["open"], before["name"], before["email"]) == (
            True,
            name,
            email.lower(),
        )
        free = before is None and not self.find_owner(email)
        if self.execute(register(id_, email, name, self.get_ring), same or free) and not same:
            self.customers[id_] = {
                "open": True,
                "name": name,
                "email": email.lower(),
                "pending": ("", self.world.now),
                "addresses": {},
            }

    @rule(id_=people, name=names)
    def rename(self, id_: str, name: str) -> None:
        if self.execute(ChangeName(id_, name), self.is_open(id_)):
            self.customers[id_]["name"] = name

    @rule(id_=people, email=emails)
    def request(self, id_: str, email: str) -> None:
        if self.execute(
            request_email(id_, email, self.get_ring), self.is_open(id_) and not self.find_owner(email)
        ):
            self.customers[id_]["pending"] = (email.lower(), self.world.now + CONFIRMABLE_FOR)

    @rule(id_=people, email=emails)
    def confirm(self, id_: str, email: str) -> None:
        self.send_confirmation(id_, email)

    @precondition(lambda self: self.customers)
    @rule(number=st.integers(0, 2))
    def confirm_pending(self, number: int) -> None:
        """Confirm what was requested, which random addresses seldom do."""
        id_ = list(self.customers)[number % len(self.customers)]
        if email := self.customers[id_]["pending"][0]:
            self.send_confirmation(id_, email)

    def send_confirmation(self, id_: str, email: str) -> None:
        expires_at = self.world.now + timedelta(days=9)
        token = sign_confirmation(id_, email.lower(), expires_at)
        command = complete(ConfirmEmail(id_, email, token), self.get_ring)
        owner, now = self.find_owner(email), self.world.now
        same = self.is_open(id_) and owner == id_
        pending: tuple[str, datetime] = self.customers[id_]["pending"] if self.is_open(id_) else ("", now)
        possible = pending[0] == email.lower() and now < pending[1] and not owner
        if self.execute(command, same or possible) and not same:
            self.customers[id_] |= {"email": email.lower(), "pending": ("", now)}

    @rule(id_=people, address_id=address_ids, recipient=names)
    def add(self, id_: str, address_id: str, recipient: str) -> None:
        addresses = self.customers[id_]["addresses"] if self.is_open(id_) else {}
        possible = self.is_open(id_) and addresses.get(address_id, recipient) == recipient
        if self.execute(add_address(id_, address_id, recipient=recipient), possible):
            addresses[address_id] = recipient

    @rule(id_=people, address_id=address_ids)
    def remove(self, id_: str, address_id: str) -> None:
        if self.execute(RemoveAddress(id_, address_id), self.is_open(id_)):
            self.customers[id_]["addresses"].pop(address_id, None)

    @rule(id_=people)
    def close(self, id_: str) -> None:
        if self.execute(CloseCustomer(id_), id_ in self.customers):
            self.customers[id_]["open"] = False

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.world.now += timedelta(hours=hours)

    @rule()
    def rotate(self) -> None:
        self.get_ring = ROTATED

    @invariant()
    def states_are_those_of_the_model(self) -> None:
        for id_, expected in self.customers.items():
            state = self.world.state(CUSTOMER.stream(id_))
            assert (state.name, state.email) == (expected["name"], expected["email"])
            addresses = {entry.address_id: entry.address.recipient for entry in state.addresses}
            assert addresses == expected["addresses"]

    @invariant()
    def each_open_customer_has_one_claim(self) -> None:
        claims = {
            name: s for name, s in self.world.states.items() if name.startswith("customers.email_claim")
        }
        taken = {claim.customer_id: name for name, claim in claims.items() if claim.customer_id}
        assert len(taken) == sum(bool(claim.customer_id) for claim in claims.values())
        assert taken == {
            id_: EMAIL_CLAIM.stream(self.world.state(CUSTOMER.stream(id_)).claim_id)
            for id_, each in self.customers.items()
            if each["open"]
        }
