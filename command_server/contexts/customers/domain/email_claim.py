"""The email claim aggregate: which open customer has an email address.

Its id is a code of the address. After a rotation of the keys an address has several claims, of which at most
one is taken: commands look at all of them, and take the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from command_server.contexts.customers.domain.messages import EmailClaimed, EmailFreed
from command_server.kernel.decider import Aggregate, AlreadyExists, UniqueValue, members

Event = EmailClaimed | EmailFreed


@dataclass(frozen=True, slots=True)
class EmailClaim:
    """The state of a claim: the customer with the address, empty if nobody has it."""

    customer_id: str = ""


def evolve(_: EmailClaim, event: Event) -> EmailClaim:
    match event:
        case EmailClaimed():
            return EmailClaim(event.customer_id)
        case EmailFreed():
            return EmailClaim()


EMAIL_CLAIM = Aggregate("customers.email_claim", EmailClaim(), evolve, members(Event))


def check_untaken(email: UniqueValue, states: Mapping[str, EmailClaim]) -> None:
    """Raise AlreadyExists if a customer has an address under any of its ids."""
    if any(states[EMAIL_CLAIM.stream(id_)].customer_id for id_ in email.ids):
        raise AlreadyExists("EMAIL_TAKEN")
