"""Rules of customers: their names and addresses, and email addresses that nobody else has."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.customers import CONTEXT
from command_server.contexts.customers.domain.customer import (
    CONFIRMABLE_FOR,
    CUSTOMER,
    MAX_ADDRESSES,
    Customer,
)
from command_server.contexts.customers.domain.email_claim import EMAIL_CLAIM
from command_server.contexts.customers.domain.messages import (
    ChangeName,
    CloseCustomer,
    ConfirmEmail,
    RegisterCustomer,
    RemoveAddress,
)
from command_server.kernel.context import command_types
from command_server.kernel.decider import Rejected
from contracts.key_ring import Purpose
from contracts.signed_tokens import TokenSigner
from diptych_testing.scenario import NOW
from diptych_testing.world import World, names_of
from tests.support.builders.people import (
    ADA,
    BOB,
    CY,
    HOME,
    add_address,
    complete,
    confirm,
    list_claim_ids,
    register,
    request_email,
    rotate,
    sign_confirmation,
)
from tests.support.harness.keys import get_ring
from tests.support.models.diagrams import find_transitions, read_diagram

MAIL, OTHER = "ada@example.com", "ada@other.example"


def make_world(*commands: Any) -> World:
    world = World(*CONTEXT.deciders)
    world.execute(*commands)
    return world


def get_customer(world: World, customer_id: str = ADA) -> Customer:
    state: Customer = world.state(CUSTOMER.stream(customer_id))
    return state


def find_claimant(world: World, email: str, get_ring: Any = get_ring) -> set[str]:
    """Return the customers who have an address under any of its ids."""
    ids = list_claim_ids(email, get_ring)
    return {world.state(EMAIL_CLAIM.stream(id_)).customer_id for id_ in ids} - {""}


def test_an_address_belongs_to_one_customer_until_it_is_closed() -> None:
    world = make_world(register(ADA, MAIL))
    world.assert_rejected(register(BOB, MAIL), "EMAIL_TAKEN")
    world.assert_rejected(register(BOB, "ADA@Example.COM"), "EMAIL_TAKEN")
    assert names_of(world.execute(CloseCustomer(ADA))) == ["CustomerClosed", "EmailFreed"]
    world.execute(register(BOB, MAIL))
    assert find_claimant(world, MAIL) == {BOB}


def test_the_states_of_a_customer_match_their_diagram() -> None:
    open_, close = register(ADA, MAIL), CloseCustomer(ADA)
    transitions = find_transitions(
        make_world,
        CUSTOMER.stream(ADA),
        {"[*]": [], "OPEN": [open_], "CLOSED": [open_, close]},
        [open_, ChangeName(ADA, "B"), request_email(ADA, OTHER), add_address(ADA, "home"), close],
        timedelta(days=2),
    )
    assert set(transitions) == read_diagram("customers.md")


def test_repeating_a_command_changes_nothing() -> None:
    world = make_world(register(ADA, MAIL))
    world.assert_unchanged(register(ADA, MAIL))
    world.execute(request_email(ADA, OTHER))
    for command in (
        ChangeName(ADA, "Ada Lovelace"),
        confirm(ADA, OTHER),
        add_address(ADA, "home"),
        RemoveAddress(ADA, "home"),
        CloseCustomer(ADA),
    ):
        assert world.execute(command)
        world.assert_unchanged(command)


def test_an_id_is_registered_once() -> None:
    world = make_world(register(ADA, MAIL))
    world.assert_rejected(register(ADA, OTHER), "CUSTOMER_EXISTS", customer_id=ADA)
    world.assert_rejected(register(ADA, MAIL, name="Bob"), "CUSTOMER_EXISTS", customer_id=ADA)
    world.execute(CloseCustomer(ADA))
    world.assert_rejected(register(ADA, MAIL), "CUSTOMER_EXISTS", customer_id=ADA)


@pytest.mark.parametrize(
    ("history", "reason"),
    [([], "CUSTOMER_NOT_FOUND"), ([register(ADA, MAIL), CloseCustomer(ADA)], "CUSTOMER_CLOSED")],
    ids=["unknown", "closed"],
)
def test_only_an_open_customer_changes(history: list[Any], reason: str) -> None:
    world = make_world(*history)
    for command in (
        ChangeName(ADA, "Bob"),
        request_email(ADA, OTHER),
        confirm(ADA, OTHER),
        add_address(ADA, "home"),
        RemoveAddress(ADA, "home"),
    ):
        world.assert_rejected(command, reason, customer_id=ADA)


@pytest.mark.parametrize("customer_id", ["", "ada", "ada@example", ADA.upper() + "A", f"{ADA}\n", "a" * 36])
def test_an_id_is_a_uuid_and_says_nothing_about_the_person(customer_id: str) -> None:
    make_world().assert_rejected(register(customer_id, MAIL), "FIELD_INVALID", field="customer_id")


def test_an_address_changes_once_it_is_confirmed() -> None:
    world = make_world(register(ADA, MAIL))
    world.execute(request_email(ADA, OTHER))
    assert (get_customer(world).email, find_claimant(world, OTHER)) == (MAIL, set())
    events = world.execute(confirm(ADA, OTHER))
    assert names_of(events) == ["EmailChanged", "EmailFreed", "EmailClaimed"]
    customer = get_customer(world)
    assert (customer.email, customer.pending_email) == (OTHER, None)
    assert (find_claimant(world, MAIL), find_claimant(world, OTHER)) == (set(), {ADA})


def test_who_confirms_first_has_the_address() -> None:
    world = make_world(register(ADA, MAIL), register(BOB, "bob@example.com"))
    world.execute(request_email(ADA, OTHER), request_email(BOB, OTHER), confirm(BOB, OTHER))
    world.assert_rejected(confirm(ADA, OTHER), "EMAIL_TAKEN")
    world.assert_rejected(request_email(ADA, OTHER), "EMAIL_TAKEN")
    world.assert_rejected(request_email(ADA, MAIL.upper()), "EMAIL_UNCHANGED")


def test_a_confirmation_is_of_one_customer_one_address_and_one_day() -> None:
    world = make_world(register(ADA, MAIL), register(BOB, "bob@example.com"))
    world.assert_rejected(confirm(ADA, OTHER), "EMAIL_CHANGE_NOT_REQUESTED")
    world.execute(request_email(ADA, OTHER), request_email(BOB, "bob@other.example"))
    of_bob = complete(ConfirmEmail(ADA, OTHER, sign_confirmation(BOB, OTHER)))
    world.assert_rejected(of_bob, "CONFIRMATION_OF_ANOTHER_CUSTOMER")
    of_mail = complete(ConfirmEmail(ADA, OTHER, sign_confirmation(ADA, MAIL)))
    world.assert_rejected(of_mail, "CONFIRMATION_OF_ANOTHER_ADDRESS")
    world.assert_rejected(confirm(ADA, OTHER, expires_at=NOW), "CONFIRMATION_EXPIRED")
    world.execute(request_email(ADA, "ada@third.example"))
    world.assert_rejected(confirm(ADA, OTHER), "EMAIL_CHANGE_NOT_REQUESTED")  # replaced
    world.execute(request_email(ADA, OTHER))
    world.now += CONFIRMABLE_FOR
    late = confirm(ADA, OTHER, expires_at=world.now + timedelta(days=9))
    world.assert_rejected(late, "EMAIL_CHANGE_NOT_REQUESTED")


@pytest.mark.parametrize(
    ("token", "cause"),
    [
        ("no token", "MALFORMED"),
        (TokenSigner(Purpose.QUOTE, get_ring).sign(b"sku"), "UNKNOWN_KEY"),
        (TokenSigner(Purpose.CONFIRMATION, get_ring).sign(b"a", "another use"), "WRONG_SIGNATURE"),
    ],
    ids=["text", "other purpose", "other use"],
)
def test_a_forged_confirmation_is_refused_on_record(token: str, cause: str) -> None:
    world = make_world(register(ADA, MAIL), request_email(ADA, OTHER))
    command = complete(ConfirmEmail(ADA, OTHER, token))
    world.assert_rejected(command, "CONFIRMATION_INVALID", cause=cause)


def test_a_confirmation_of_a_revoked_key_is_refused() -> None:
    world = make_world(register(ADA, MAIL), request_email(ADA, OTHER))
    token = sign_confirmation(ADA, OTHER)
    revoked, older = (rotate(Purpose.CONFIRMATION, state) for state in ("revoked", "verify-only"))
    command = ConfirmEmail(ADA, OTHER, token)
    world.assert_rejected(complete(command, revoked), "CONFIRMATION_INVALID", cause="REVOKED_KEY")
    world.execute(complete(command, older))


@pytest.mark.parametrize("state", ["active", "verify-only", "revoked"])
def test_an_address_stays_unique_when_the_key_is_rotated(state: str) -> None:
    rotated = rotate(Purpose.UNIQUE, state)
    world = make_world(register(ADA, MAIL))
    world.assert_rejected(register(BOB, MAIL, get_ring=rotated), "EMAIL_TAKEN")
    world.execute(register(BOB, OTHER, get_ring=rotated))
    world.assert_rejected(request_email(ADA, OTHER, rotated), "EMAIL_TAKEN")
    assert find_claimant(world, MAIL, rotated) == {ADA}


def test_servers_that_sign_with_different_keys_see_the_claims_of_each_other() -> None:
    soon, now = rotate(Purpose.UNIQUE, "active", begins_in=2999), rotate(Purpose.UNIQUE, "active")
    for first, second in ((soon, now), (now, soon)):
        world = make_world(register(ADA, MAIL, get_ring=first))
        world.assert_rejected(register(BOB, MAIL, get_ring=second), "EMAIL_TAKEN")


def test_an_address_moves_to_the_new_key_with_its_next_customer() -> None:
    rotated = rotate(Purpose.UNIQUE)
    world = make_world(register(ADA, MAIL), CloseCustomer(ADA), register(BOB, MAIL, get_ring=rotated))
    assert get_customer(world, BOB).claim_id == list_claim_ids(MAIL, rotated)[0]
    world.assert_rejected(register(CY, MAIL, get_ring=rotated), "EMAIL_TAKEN")
    assert find_claimant(world, MAIL, rotated) == {BOB}


def test_a_change_that_was_requested_before_a_rotation_is_confirmed_after_it() -> None:
    rotated = rotate(Purpose.UNIQUE)
    world = make_world(register(ADA, MAIL), request_email(ADA, OTHER))
    token = sign_confirmation(ADA, OTHER)
    world.execute(register(BOB, "bob@example.com", get_ring=rotated))
    world.execute(complete(ConfirmEmail(ADA, OTHER, token), rotated))
    assert (find_claimant(world, OTHER, rotated), find_claimant(world, MAIL, rotated)) == ({ADA}, set())


@pytest.mark.parametrize(
    ("email", "cause"),
    [
        ("ada", "NO_AT_SIGN"),
        ("ada\u202e@example.com", "HIDDEN_CHARACTER"),
        ("ada@exam\u200bple.com", "HIDDEN_CHARACTER"),
        ("ad\u0430@example.com", "LOCAL_PART"),  # a Cyrillic letter
        ("ada@localhost", "DOMAIN"),
        ("ada@example.com ", "DOMAIN"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(email: str, cause: str) -> None:
    world = make_world()
    world.assert_rejected(register(ADA, email), "EMAIL_INVALID", cause=cause)
    world.execute(register(ADA, MAIL))
    world.assert_rejected(request_email(ADA, email), "EMAIL_INVALID", cause=cause)
    world.assert_rejected(RegisterCustomer(BOB, "Bob", OTHER), "EMAIL_INVALID", cause="MALFORMED")


def test_rejections_are_on_record_and_have_no_personal_data() -> None:
    world = make_world(register(ADA, MAIL), request_email(ADA, OTHER))
    third = "ada@third.example"
    for command in (register(BOB, MAIL), register(ADA, OTHER), request_email(ADA, MAIL), confirm(ADA, third)):
        with pytest.raises(Rejected) as caught:
            world.execute(command)
        assert "example" not in str(caught.value.details)


def test_texts_are_normalised_and_have_no_hidden_characters() -> None:
    world = make_world(register(ADA, MAIL, name=" Ame\u0301lie "))
    assert get_customer(world).name == "Am\u00e9lie"
    for text, character in (("A\u202eda", "U+202E"), ("A\nda", "U+000A"), ("A\u200bda", "U+200B")):
        found: dict[str, Any] = {"character": character}
        refused: list[tuple[Any, str]] = [
            (register(BOB, OTHER, name=text), "name"),
            (ChangeName(ADA, text), "name"),
            (add_address(ADA, "home", recipient=text), "address.recipient"),
            (add_address(ADA, "home", address_lines=("a", text)), "address.address_lines[1]"),
            (add_address(ADA, "home", postal_code=text), "address.postal_code"),
            (add_address(ADA, "home", locality=text), "address.locality"),
        ]
        for command, field in refused:
            world.assert_rejected(command, "TEXT_CHARACTER_FORBIDDEN", field=field, **found)
    world.assert_rejected(ChangeName(ADA, " "), "TEXT_EMPTY", field="name")
    world.execute(add_address(ADA, "home", postal_code=""))


def test_addresses_have_ids_and_a_limit() -> None:
    world = make_world(register(ADA, MAIL))
    world.execute(*(add_address(ADA, f"a-{number}") for number in range(MAX_ADDRESSES)))
    world.assert_unchanged(add_address(ADA, "a-1", recipient="Ada Lovelace "))
    world.assert_rejected(add_address(ADA, "a-1", recipient="Bob"), "ADDRESS_EXISTS", address_id="a-1")
    world.assert_rejected(add_address(ADA, "b"), "ADDRESS_TOO_MANY", most=str(MAX_ADDRESSES))
    world.execute(RemoveAddress(ADA, "a-1"), add_address(ADA, "b", recipient="Bob"))
    addresses = get_customer(world).addresses
    assert (len(addresses), addresses[-1].address) == (MAX_ADDRESSES, replace(HOME, recipient="Bob"))


def test_a_command_with_unique_values_needs_a_context_that_normalizes_them() -> None:
    without: Any
    for without in ({"unique_values": None}, {"signed_values": None}):
        with pytest.raises(TypeError, match=f"{next(iter(without))} belongs to contexts with"):
            command_types(replace(CONTEXT, **without))
