"""Commands and events of customers and of the claims of their email addresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from command_server.kernel.decider import InvalidValue, UniqueValue
from command_server.kernel.field_rules import Id, at_least, at_most, length, matching

CustomerId = Annotated[str, matching("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")]
"""A UUID, so that subjects and keys with it say nothing about the person."""
ShortText = Annotated[str, length(1, 200)]
Email = Annotated[str, length(1, 254)]
UniqueValues = Mapping[str, UniqueValue | InvalidValue]


@dataclass(frozen=True, slots=True)
class PostalAddress:
    """A postal address."""

    recipient: ShortText
    address_lines: Annotated[tuple[ShortText, ...], at_least(1), at_most(4)]
    postal_code: Annotated[str, length(0, 20)]
    locality: ShortText
    region_code: Annotated[str, matching("[A-Z]{2}")]


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Personal data of an event, in a message of its own so that it can be sealed with one person's key."""

    subject_id: str
    name: str = ""
    email: str = ""
    address: PostalAddress | None = None
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Proof that its bearer reads mail of an address."""

    customer_id: str
    claim_id: str
    expires_at: datetime


# Commands


@dataclass(frozen=True, slots=True)
class RegisterCustomer:
    """Register a customer."""

    customer_id: CustomerId
    name: ShortText
    email: Email
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return (self.email,)


@dataclass(frozen=True, slots=True)
class ChangeName:
    """Change the name of a customer."""

    customer_id: CustomerId
    name: ShortText


@dataclass(frozen=True, slots=True)
class RequestEmailChange:
    """Ask for another email address."""

    customer_id: CustomerId
    email: Email
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return (self.email,)


@dataclass(frozen=True, slots=True)
class ConfirmEmail:
    """Change the email address to the one that was asked for."""

    customer_id: CustomerId
    email: Email
    confirmation: Annotated[str, length(1, 1024)]
    signed_values: Mapping[str, Confirmation | InvalidValue] = field(default_factory=dict)
    unique_values: UniqueValues = field(default_factory=dict)

    @property
    def tokens(self) -> Sequence[str]:
        return (self.confirmation,)

    @property
    def claimed_texts(self) -> Sequence[str]:
        return (self.email,)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Add an address under an id."""

    customer_id: CustomerId
    address_id: Id
    address: PostalAddress


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Remove an address."""

    customer_id: CustomerId
    address_id: Id


@dataclass(frozen=True, slots=True)
class CloseCustomer:
    """Close a customer for good."""

    customer_id: CustomerId


# Events


@dataclass(frozen=True, slots=True)
class CustomerRegistered:
    """A customer was registered."""

    customer_id: str
    personal: PersonalData
    claim_id: str
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class NameChanged:
    """The name of a customer was changed."""

    customer_id: str
    personal: PersonalData
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class EmailChangeRequested:
    """Another email address is to be confirmed."""

    customer_id: str
    personal: PersonalData
    expires_at: datetime
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class EmailChanged:
    """The other email address was confirmed."""

    customer_id: str
    personal: PersonalData
    claim_id: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class AddressAdded:
    """An address was added."""

    customer_id: str
    address_id: str
    personal: PersonalData
    added_at: datetime


@dataclass(frozen=True, slots=True)
class AddressRemoved:
    """An address was removed."""

    customer_id: str
    address_id: str
    removed_at: datetime


@dataclass(frozen=True, slots=True)
class CustomerClosed:
    """A customer was closed."""

    customer_id: str
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class EmailClaimed:
    """An email address became that of a customer."""

    claim_id: str
    customer_id: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class EmailFreed:
    """An email address is no longer that of a customer."""

    claim_id: str
    customer_id: str
    freed_at: datetime
