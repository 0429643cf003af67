"""Mandates: who may order at the cost of an account, and that each hold counts once."""

import random
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from command_server.contexts.banking.domain.hold import HOLD, Status
from command_server.contexts.banking.domain.mandate import MANDATE, Mandate, make_mandate_id
from command_server.contexts.banking.domain.mandate_messages import GrantMandate, RevokeMandate
from command_server.contexts.banking.domain.messages import (
    CaptureHold,
    CloseAccount,
    ExpireHold,
    FirmHold,
    ReleaseHold,
)
from command_server.kernel.decider import Rejected
from command_server.kernel.money import Money
from diptych_testing import folds
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from tests.support.builders.bank import DEADLINE, eur, get_levels, hold, make_bank

UNTIL = NOW + timedelta(days=30)
GRANT = GrantMandate("a", "bob", order_limit=eur(40), total_limit=eur(100), until=UNTIL)
MANDATE_ID = make_mandate_id("a", "bob")
REVOKE = RevokeMandate(MANDATE_ID)


@pytest.fixture
def bank() -> World:
    """Ada's account with money, and Bob's mandate for it."""
    world = make_bank(a=1_000)
    world.execute(GRANT)
    return world


def by_bob(id_: str, units: int) -> Any:
    return hold(id_, units, customer_id="bob")


def get_mandate(world: World) -> Mandate:
    mandate: Mandate = world.state(MANDATE.stream(MANDATE_ID))
    return mandate


def test_nobody_orders_at_the_cost_of_a_strangers_account() -> None:
    world = make_bank(a=1_000)
    world.assert_rejected(by_bob("h-1", 1), "MANDATE_MISSING", account_id="a", customer_id="bob")
    world.execute(hold("h-1", 900))
    world.assert_rejected(hold("h-2", 1, "x", customer_id="bob"), "ACCOUNT_NOT_FOUND")


def test_a_mandate_covers_orders_within_its_limits(bank: World) -> None:
    bank.assert_rejected(by_bob("h-1", 41), "MANDATE_ORDER_LIMIT_EXCEEDED")
    bank.execute(by_bob("h-1", 40), by_bob("h-2", 40))
    bank.assert_rejected(by_bob("h-3", 21), "MANDATE_TOTAL_LIMIT_EXCEEDED")
    bank.execute(by_bob("h-3", 20))
    bank.assert_rejected(by_bob("h-4", 1), "MANDATE_TOTAL_LIMIT_EXCEEDED")
    bank.execute(hold("h-4", 500))
    assert (get_levels(bank), get_mandate(bank).used) == ((1_000, 600), eur(100))
    bank.assert_rejected(hold("h-5", 1, customer_id="cy"), "MANDATE_MISSING")
    folds.compare(bank)


def test_a_mandate_is_in_the_currency_of_its_account(bank: World) -> None:
    usd = Money("USD", 1)
    for other in (replace(GRANT, order_limit=usd), replace(GRANT, total_limit=usd)):
        bank.assert_rejected(other, "CURRENCY_MISMATCH", account="EUR", asked="USD")
    bank.assert_rejected(replace(by_bob("h-1", 1), amount=Money("USD", 1)), "CURRENCY_MISMATCH")


def test_a_mandate_ends_with_its_time_or_its_revocation(bank: World) -> None:
    bank.now = UNTIL
    late = hold("h-1", 1, deadline=UNTIL + timedelta(hours=1), customer_id="bob")
    bank.assert_rejected(late, "MANDATE_EXPIRED", until=str(UNTIL))
    bank.assert_rejected(GRANT, "MANDATE_UNTIL_INVALID")
    bank.now = NOW
    bank.execute(by_bob("h-1", 30), REVOKE)
    bank.assert_unchanged(REVOKE)
    bank.assert_rejected(by_bob("h-2", 1), "MANDATE_REVOKED")
    bank.execute(CaptureHold("h-1", None), GRANT)
    bank.assert_rejected(by_bob("h-2", 40 + 31), "MANDATE_ORDER_LIMIT_EXCEEDED")
    bank.execute(by_bob("h-2", 40), by_bob("h-3", 30))
    assert get_mandate(bank).used == eur(100)
    folds.compare(bank)


def test_a_grant_again_changes_the_limits_and_not_what_is_used(bank: World) -> None:
    bank.execute(by_bob("h-1", 40))
    bank.assert_unchanged(GRANT)
    bank.execute(replace(GRANT, order_limit=eur(60)), by_bob("h-2", 60))
    bank.assert_rejected(by_bob("h-3", 1), "MANDATE_TOTAL_LIMIT_EXCEEDED")
    folds.compare(bank)


def test_mandates_that_cannot_be_are_rejected(bank: World) -> None:
    bank.assert_rejected(replace(GRANT, account_id="x"), "ACCOUNT_NOT_FOUND")
    bank.assert_rejected(replace(GRANT, customer_id="ada"), "MANDATE_OF_OWNER")
    bank.assert_rejected(RevokeMandate("m"), "MANDATE_NOT_FOUND", mandate_id="m")
    empty = make_bank(a=0)
    empty.execute(CloseAccount("a"))
    empty.assert_rejected(GRANT, "ACCOUNT_CLOSED")


@pytest.mark.parametrize(
    ("ends", "used"),
    [
        ([CaptureHold("h-1", None)], 30),
        ([CaptureHold("h-1", eur(10))], 10),
        ([ReleaseHold("h-1", "over")], 0),
        ([FirmHold("h-1"), ReleaseHold("h-1", "over")], 0),
        ([FirmHold("h-1"), CaptureHold("h-1", eur(10))], 10),
    ],
)
def test_what_a_hold_does_not_pay_is_free_again(bank: World, ends: list[Any], used: int) -> None:
    bank.execute(by_bob("h-1", 30), *ends)
    bank.assert_unchanged(ends[-1])
    bank.assert_unchanged(by_bob("h-1", 30))
    assert get_mandate(bank).used == eur(used)
    folds.compare(bank)


def test_an_expired_hold_is_free_again_after_the_revocation(bank: World) -> None:
    bank.execute(by_bob("h-1", 30), REVOKE)
    bank.now = DEADLINE
    bank.execute(ExpireHold("h-1"))
    assert get_mandate(bank).used == eur(0)
    folds.compare(bank)


def test_a_hold_of_another_customer_is_another_hold(bank: World) -> None:
    bank.execute(by_bob("h-1", 30))
    bank.assert_rejected(hold("h-1", 30), "HOLD_EXISTS")


@pytest.mark.parametrize("seed", range(5))
def test_a_mandate_counts_each_hold_once_in_whatever_order_commands_come(seed: int) -> None:
    rng, world = random.Random(seed), make_bank(a=10_000)
    world.execute(GRANT)
    for _ in range(300):
        id_ = f"h-{rng.randrange(12)}"
        part = eur(rng.randint(1, 40))
        command = rng.choice(
            [
                by_bob(id_, rng.randint(1, 41)),
                hold(id_, 7),
                FirmHold(id_),
                CaptureHold(id_, rng.choice((None, part))),
                ReleaseHold(id_, "over"),
                ExpireHold(id_),
                REVOKE,
                replace(GRANT, total_limit=eur(rng.randint(50, 400))),
            ]
        )
        with suppress(Rejected):
            world.execute(command)
        world.now += timedelta(minutes=rng.choice((0, 0, 40)))
        holds = [world.state(HOLD.stream(f"h-{number}")) for number in range(12)]
        expected = eur(0)
        for each in holds:
            if each.customer_id == "bob" and each.status is not Status.RELEASED:
                expected += each.captured or each.amount
        assert get_mandate(world).used == expected
    folds.compare(world)
    world.assert_snapshots_decode()
