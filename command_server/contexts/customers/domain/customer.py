"""The customer aggregate: registered with an email address of its own, changed, and closed for good.

A command that gives or takes an address changes the claim of the address, too (`email_claim.py`).
docs/customers.md has the state diagram; a test compares it with these rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from command_server.contexts.customers.domain.addresses import clean_address
from command_server.contexts.customers.domain.email_claim import EMAIL_CLAIM, check_untaken
from command_server.contexts.customers.domain.messages import (
    AddAddress,
    AddressAdded,
    AddressRemoved,
    ChangeName,
    CloseCustomer,
    Confirmation,
    ConfirmEmail,
    CustomerClosed,
    CustomerRegistered,
    EmailChanged,
    EmailChangeRequested,
    EmailClaimed,
    EmailFreed,
    NameChanged,
    PersonalData,
    PostalAddress,
    RegisterCustomer,
    RemoveAddress,
    RequestEmailChange,
)
from command_server.kernel.decider import (
    Aggregate,
    AlreadyExists,
    Decider,
    InvalidValue,
    NotFound,
    Rejected,
    UniqueValue,
    members,
    one_stream,
)
from command_server.kernel.field_rules import check_fields
from command_server.kernel.texts import clean_text

MAX_ADDRESSES = 20
CONFIRMABLE_FOR = timedelta(days=1)
"""Time from a request for another address to the end of its confirmation."""

Command = ChangeName | AddAddress | RemoveAddress
EmailCommand = RegisterCustomer | RequestEmailChange | ConfirmEmail | CloseCustomer
Event = (
    CustomerRegistered
    | NameChanged
    | EmailChangeRequested
    | EmailChanged
    | AddressAdded
    | AddressRemoved
    | CustomerClosed
)
EventsByStream = Mapping[str, Sequence[Any]]

# State


class Status(Enum):
    """Statuses of a customer; NONE before it is registered."""

    NONE = "NONE"
    OPEN = "OPEN"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class PendingEmail:
    """An address to confirm."""

    email: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AddressEntry:
    """An address under its id."""

    address_id: str
    address: PostalAddress


@dataclass(frozen=True, slots=True)
class Customer:
    """The state of a customer, as far as the rules need it."""

    status: Status = Status.NONE
    name: str = ""
    email: str = ""
    claim_id: str = ""
    pending_email: PendingEmail | None = None
    addresses: tuple[AddressEntry, ...] = ()

    def find_address(self, address_id: str) -> PostalAddress | None:
        for entry in self.addresses:
            if entry.address_id == address_id:
                return entry.address
        return None


# Decide


def decide(command: Command, customer: Customer, now: datetime) -> Sequence[Event]:
    """Return the events that follow from a command on a customer alone, none if it changes nothing.

    Raises:
        Rejected: a rule does not allow the command.
    """
    check_fields(command)
    check_open(customer, command.customer_id)
    match command:
        case ChangeName(id_, name):
            cleaned = clean_text("name", name, is_required=True)
            personal = PersonalData(id_, name=cleaned)
            return [] if cleaned == customer.name else [NameChanged(id_, personal, changed_at=now)]
        case AddAddress():
            return add_address(command, customer, now)
        case RemoveAddress(id_, address_id):
            if customer.find_address(address_id) is None:
                return []
            return [AddressRemoved(id_, address_id, removed_at=now)]


def check_open(customer: Customer, customer_id: str) -> None:
    """Raise NotFound or Rejected unless a customer is open."""
    if customer.status is Status.NONE:
        raise NotFound("CUSTOMER_NOT_FOUND", customer_id=customer_id)
    if customer.status is Status.CLOSED:
        raise Rejected("CUSTOMER_CLOSED", customer_id=customer_id)


def add_address(command: AddAddress, customer: Customer, now: datetime) -> Sequence[Event]:
    """Return the event of a new address, or none if its id has the same one.

    Raises:
        AlreadyExists: its id has another address.
        Rejected: the customer has as many addresses as it may, or a text is invalid.
    """
    id_, address = command.customer_id, clean_address(command.address)
    existing = customer.find_address(command.address_id)
    if existing is not None and existing != address:
        raise AlreadyExists("ADDRESS_EXISTS", address_id=command.address_id)
    if existing is not None:
        return []
    if len(customer.addresses) >= MAX_ADDRESSES:
        raise Rejected("ADDRESS_TOO_MANY", most=MAX_ADDRESSES)
    personal = PersonalData(id_, address=address)
    return [AddressAdded(id_, command.address_id, personal, added_at=now)]


def list_streams(command: EmailCommand) -> Sequence[str]:
    """A command with an email address is also about its claims, whether it takes them or looks at them."""
    customer = CUSTOMER.stream(command.customer_id)
    if isinstance(command, CloseCustomer):
        return (customer,)
    email = command.unique_values.get(command.email)
    claims = map(EMAIL_CLAIM.stream, email.ids) if isinstance(email, UniqueValue) else ()
    return (customer, *claims)


def list_related_streams(command: EmailCommand, states: Mapping[str, Any]) -> Sequence[str]:
    """ConfirmEmail and CloseCustomer also free the present claim, which only the customer's state names."""
    customer: Customer = states[CUSTOMER.stream(command.customer_id)]
    frees = isinstance(command, ConfirmEmail | CloseCustomer) and customer.status is Status.OPEN
    return [EMAIL_CLAIM.stream(customer.claim_id)] if frees else ()


def decide_email(command: EmailCommand, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events by stream of a command about a customer's email address.

    Raises:
        Rejected: a rule does not allow the command.
    """
    check_fields(command)
    customer: Customer = states[CUSTOMER.stream(command.customer_id)]
    match command:
        case RegisterCustomer():
            return register(command, customer, states, now)
        case RequestEmailChange():
            return request_email(command, customer, states, now)
        case ConfirmEmail():
            return confirm_email(command, customer, states, now)
        case CloseCustomer():
            return close(command.customer_id, customer, now)


def read_email(command: RegisterCustomer | RequestEmailChange | ConfirmEmail) -> UniqueValue:
    """Return the email address of a command in its one form.

    Raises:
        Rejected: it is no address.
    """
    email = command.unique_values.get(command.email, InvalidValue("MALFORMED"))
    if isinstance(email, InvalidValue):
        raise Rejected("EMAIL_INVALID", cause=email.cause)
    return email


def register(
    command: RegisterCustomer, customer: Customer, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the events of a new customer by stream, or none if there is the same.

    Raises:
        AlreadyExists: there is another customer with this id, or with this address.
        Rejected: the address or the name is invalid.
    """
    id_, email, name = (
        command.customer_id,
        read_email(command),
        clean_text("name", command.name, is_required=True),
    )
    if customer.status is not Status.NONE:
        if (customer.name, customer.email) == (name, email.text) and customer.status is Status.OPEN:
            return {}
        raise AlreadyExists("CUSTOMER_EXISTS", customer_id=id_)
    check_untaken(email, states)
    claim_id, personal = email.ids[0], PersonalData(id_, name, email.text)
    return {
        CUSTOMER.stream(id_): [CustomerRegistered(id_, personal, claim_id, registered_at=now)],
        EMAIL_CLAIM.stream(claim_id): [EmailClaimed(claim_id, id_, claimed_at=now)],
    }


def request_email(
    command: RequestEmailChange, customer: Customer, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the event of a request for another address; the address is not taken before it is confirmed.

    Raises:
        NotFound: the customer does not exist.
        AlreadyExists: another customer has the address.
        Rejected: the customer is closed or has the address, or it is invalid.
    """
    id_ = command.customer_id
    check_open(customer, id_)
    email = read_email(command)
    if email.text == customer.email:
        raise Rejected("EMAIL_UNCHANGED", customer_id=id_)
    check_untaken(email, states)
    personal, expires_at = PersonalData(id_, email=email.text), now + CONFIRMABLE_FOR
    return {CUSTOMER.stream(id_): [EmailChangeRequested(id_, personal, expires_at, requested_at=now)]}


def confirm_email(
    command: ConfirmEmail, customer: Customer, states: Mapping[str, Any], now: datetime
) -> EventsByStream:
    """Return the events that change the address, by stream, or none if it was confirmed before.

    Raises:
        NotFound: the customer does not exist.
        AlreadyExists: another customer has the address by now.
        Rejected: the customer is closed, the address was not requested, or the confirmation is not of it.
    """
    id_ = command.customer_id
    check_open(customer, id_)
    email = read_email(command)
    check_confirmation(command, email, now)
    if email.text == customer.email:
        return {}
    pending = customer.pending_email
    if pending is None or pending.email != email.text or pending.expires_at <= now:
        raise Rejected("EMAIL_CHANGE_NOT_REQUESTED", customer_id=id_)
    check_untaken(email, states)
    claim_id, personal = email.ids[0], PersonalData(id_, email=email.text)
    return {
        CUSTOMER.stream(id_): [EmailChanged(id_, personal, claim_id, changed_at=now)],
        EMAIL_CLAIM.stream(customer.claim_id): [EmailFreed(customer.claim_id, id_, freed_at=now)],
        EMAIL_CLAIM.stream(claim_id): [EmailClaimed(claim_id, id_, claimed_at=now)],
    }


def check_confirmation(command: ConfirmEmail, email: UniqueValue, now: datetime) -> None:
    """Raise Rejected unless a confirmation is valid for this customer and address."""
    confirmation: Confirmation | InvalidValue
    confirmation = command.signed_values.get(command.confirmation, InvalidValue("MALFORMED"))
    if isinstance(confirmation, InvalidValue):
        raise Rejected("CONFIRMATION_INVALID", cause=confirmation.cause)
    if confirmation.customer_id != command.customer_id:
        raise Rejected("CONFIRMATION_OF_ANOTHER_CUSTOMER", customer_id=command.customer_id)
    if confirmation.claim_id not in email.ids:
        raise Rejected("CONFIRMATION_OF_ANOTHER_ADDRESS", customer_id=command.customer_id)
    if confirmation.expires_at <= now:
        raise Rejected("CONFIRMATION_EXPIRED", expires_at=confirmation.expires_at)


def close(customer_id: str, customer: Customer, now: datetime) -> EventsByStream:
    """Return the events that close a customer and free the address, by stream, or none if it is closed.

    Raises:
        NotFound: the customer does not exist.
    """
    if customer.status is Status.CLOSED:
        return {}
    check_open(customer, customer_id)
    claim_id = customer.claim_id
    return {
        CUSTOMER.stream(customer_id): [CustomerClosed(customer_id, closed_at=now)],
        EMAIL_CLAIM.stream(claim_id): [EmailFreed(claim_id, customer_id, freed_at=now)],
    }


# Evolve


def evolve(customer: Customer, event: Event) -> Customer:
    match event:
        case CustomerRegistered():
            return Customer(Status.OPEN, event.personal.name, event.personal.email, event.claim_id)
        case NameChanged():
            return replace(customer, name=event.personal.name)
        case EmailChangeRequested():
            return replace(customer, pending_email=PendingEmail(event.personal.email, event.expires_at))
        case EmailChanged():
            return replace(customer, email=event.personal.email, claim_id=event.claim_id, pending_email=None)
        case AddressAdded():
            if (address := event.personal.address) is None:
                return customer
            entry = AddressEntry(event.address_id, address)
            return replace(customer, addresses=(*customer.addresses, entry))
        case AddressRemoved():
            others = tuple(each for each in customer.addresses if each.address_id != event.address_id)
            return replace(customer, addresses=others)
        case CustomerClosed():
            return replace(customer, status=Status.CLOSED, pending_email=None)


CUSTOMER = Aggregate(
    "customers.customer", Customer(), evolve, members(Event), subjects=lambda _, customer_id: (customer_id,)
)
DECIDER = one_stream(CUSTOMER, Command, key="customer_id", decide=decide)
EMAIL_DECIDER = Decider(
    members(EmailCommand),
    (CUSTOMER, EMAIL_CLAIM),
    "customer_id",
    list_streams,
    decide_email,
    list_related_streams,
)
