"""Customers, and the commands about them as the edge passes them on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from time import time
from typing import Any
from uuid import UUID

from diptych.customers.v1.types_pb2 import Confirmation

from command_server.contexts.customers import CONTEXT
from command_server.contexts.customers.domain.email_claim import EMAIL_CLAIM
from command_server.contexts.customers.domain.messages import (
    AddAddress,
    ConfirmEmail,
    PostalAddress,
    RegisterCustomer,
    RequestEmailChange,
)
from contracts.hidden_ids import list_hidden_ids
from contracts.key_ring import KeyRing, Purpose
from contracts.signed_tokens import TokenSigner
from diptych_testing.scenario import NOW
from tests.support.harness.keys import FILE, get_ring

HOME = PostalAddress("Ada Lovelace", ("12 St James's Square",), "SW1Y 4JH", "London", "GB")
ADA, BOB, CY = (str(UUID(int=number)) for number in range(1, 4))
LATER = NOW + timedelta(hours=1)
GetRing = Callable[[], KeyRing]


def complete(command: Any, get_ring: GetRing = get_ring) -> Any:
    """Return a command with its unique and signed values."""
    for part, has_any in (
        (CONTEXT.unique_values, hasattr(command, "claimed_texts")),
        (CONTEXT.signed_values, hasattr(command, "tokens")),
    ):
        assert part
        command = part.build_completion(get_ring)(command) if has_any else command
    return command


def register(customer_id: str, email: str, name: str = "Ada", get_ring: GetRing = get_ring) -> Any:
    return complete(RegisterCustomer(customer_id, name, email), get_ring)


def request_email(customer_id: str, email: str, get_ring: GetRing = get_ring) -> Any:
    return complete(RequestEmailChange(customer_id, email), get_ring)


def confirm(customer_id: str, email: str, expires_at: datetime = LATER) -> Any:
    """Return ConfirmEmail with a valid confirmation."""
    content = sign_confirmation(customer_id, email, expires_at)
    return complete(ConfirmEmail(customer_id, email, content))


def sign_confirmation(customer_id: str, email: str, expires_at: datetime = LATER) -> str:
    claim_id = list_claim_ids(email)[0]
    content = Confirmation(customer_id=customer_id, claim_id=claim_id)
    content.expires_at.FromDatetime(expires_at)
    return TokenSigner(Purpose.CONFIRMATION, get_ring).sign(content.SerializeToString())


def list_claim_ids(email: str, get_ring: GetRing = get_ring) -> tuple[str, ...]:
    return list_hidden_ids(get_ring(), EMAIL_CLAIM.stream_type, email, time())


def add_address(customer_id: str, address_id: str, **changed: Any) -> AddAddress:
    return AddAddress(customer_id, address_id, replace(HOME, **changed))


def rotate(purpose: Purpose, state: str = "verify-only", begins_in: int = 2026) -> GetRing:
    """Return the ring of the tests with a newer key of a purpose.

    Args:
        purpose: of the keys.
        state: of the older key.
        begins_in: the year from which the newer one signs.
    """
    old = f'"purpose": "{purpose}", "algorithm": "BLAKE2b-128", "state": "active"'.encode()
    head, tail = FILE.split(old)
    older = head + old.replace(b'"active"', f'"{state}"'.encode()) + tail
    added = (
        f'{{"id": "new", "purpose": "{purpose}", "algorithm": "HMAC-SHA256-128", "state": "active", '
        f'"from": "{begins_in}-01-02T00:00:00Z", "secret": "{"b" * 44}"}}, '
    ).encode()
    ring = KeyRing.parse(older.replace(b'{"keys": [', b'{"keys": [' + added))
    return lambda: ring
