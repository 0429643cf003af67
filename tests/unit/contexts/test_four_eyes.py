"""Four eyes: what one person may pay out alone, counted over 24 hours, and who is a second person."""

import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from command_server.contexts.banking.domain.messages import (
    ApproveTransfer,
    Deposit,
    MoneyWithdrawn,
    OpenAccount,
    RequestTransfer,
    TransferSent,
    Withdraw,
)
from command_server.contexts.banking.domain.payment_window import Bucket, add_payment, sum_window
from command_server.contexts.banking.domain.withdrawal_messages import (
    ApproveWithdrawal,
    DeclineWithdrawal,
    RequestWithdrawal,
)
from command_server.kernel.decider import Rejected, UniqueValue
from command_server.kernel.money import Money
from diptych_testing import folds
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from tests.support.builders.bank import (
    clear_cases,
    eur,
    get_account,
    get_levels,
    identify,
    make_bank,
    transfer,
    withdraw,
)

HOUR = timedelta(hours=1)
NEEDS_APPROVAL = "WITHDRAWAL_NEEDS_APPROVAL"
CASH = identify(RequestWithdrawal("w-1", "a", eur(20_000), "cash"), "shop", "ada")


@pytest.fixture
def bank() -> World:
    return make_bank(a=100_000, b=100_000, c=0)


def test_payments_in_a_row_of_one_account_need_a_second_person_at_the_threshold(bank: World) -> None:
    bank.execute(withdraw("a", 6_000, "ada"), transfer("t-1", 4_000, caller="bob"))
    bank.assert_rejected(withdraw("a", 1, "cy"), NEEDS_APPROVAL, above="10000", counted="ACCOUNT")
    bank.assert_rejected(
        transfer("t-2", 1, caller="cy"), "TRANSFER_NEEDS_APPROVAL", above="10000", counted="ACCOUNT"
    )
    folds.compare(bank)


def test_payments_of_one_person_are_counted_across_accounts_and_services(bank: World) -> None:
    bank.execute(
        withdraw("a", 4_000, "ada"),
        withdraw("b", 3_000, "shop", on_behalf_of="ada"),
        transfer("t-1", 3_000, "b", "c", "app", on_behalf_of="ada"),
    )
    for caller, on_behalf_of in (("ada", ""), ("shop", "ada"), ("another", "ada")):
        bank.assert_rejected(withdraw("b", 1, caller, on_behalf_of), NEEDS_APPROVAL, counted="PERSON")
    bank.execute(withdraw("b", 1, "shop", on_behalf_of="bob"))
    folds.compare(bank)


def test_a_service_is_not_the_person_on_whose_behalf_it_acts(bank: World) -> None:
    bank.execute(withdraw("a", 9_000, "shop", "ada"), withdraw("b", 9_000, "shop", "bob"))
    bank.execute(withdraw("b", 1_000, "shop"))


def test_each_currency_has_a_sum_of_its_own(bank: World) -> None:
    usd = Money("USD", 9_999)
    bank.execute(
        OpenAccount("d", "ada", "USD", None, None), Deposit("d", usd, "pay"), withdraw("a", 9_999, "ada")
    )
    bank.execute(identify(Withdraw("d", usd, "cash"), "ada"))
    folds.compare(bank)


def test_a_payment_counts_for_24_to_25_hours(bank: World) -> None:
    for minutes in (0, 59):
        world = make_bank(a=30_000)
        world.now = paid_at = NOW.replace(minute=minutes)
        world.execute(withdraw("a", 9_999))
        world.now = paid_at + 24 * HOUR
        world.assert_rejected(withdraw("a", 2), NEEDS_APPROVAL)
        world.now = paid_at.replace(minute=0, second=0) + 25 * HOUR - timedelta(microseconds=1)
        world.assert_rejected(withdraw("a", 2), NEEDS_APPROVAL)
        world.now = paid_at.replace(minute=0, second=0) + 25 * HOUR
        world.execute(withdraw("a", 9_999))
        folds.compare(world)


def test_a_window_is_bounded_and_counts_exactly() -> None:
    now, window = NOW, tuple[Bucket, ...]()
    for _ in range(500):
        window, now = add_payment(window, eur(0, 1), now), now + timedelta(minutes=17)
    assert len(window) == 25
    assert [bucket.hour for bucket in window] == sorted({bucket.hour for bucket in window})
    counted = sum(
        NOW + timedelta(minutes=17 * n) >= now.replace(minute=0, second=0) - 24 * HOUR for n in range(500)
    )
    assert sum_window(window, "EUR", now) == eur(0, counted)


def test_a_clock_that_went_back_forgets_no_payment() -> None:
    window = add_payment((), eur(1), NOW)
    window = add_payment(window, eur(2), NOW - 30 * HOUR)
    assert sum_window(window, "EUR", NOW) == eur(3)


def test_payments_under_the_id_of_an_earlier_key_count(bank: World) -> None:
    bank.execute(withdraw("a", 6_000))
    command: Any = withdraw("b", 5_000)
    (text,) = command.claimed_texts
    (earlier,) = command.unique_values[text].ids
    rotated = replace(command, unique_values={text: UniqueValue(text, ("new", earlier))})
    bank.assert_rejected(rotated, NEEDS_APPROVAL, counted="PERSON")
    bank.execute(replace(rotated, amount=eur(4_000)))
    assert {name for name in bank.states if name.startswith("banking.payer.")} == {
        f"banking.payer.{earlier}",
        "banking.payer.new",
    }


def test_a_command_without_a_payer_pays_nothing(bank: World) -> None:
    with pytest.raises(IndexError):
        bank.execute(replace(withdraw("a", 1), unique_values={}))


def test_what_two_people_agreed_on_counts_in_no_sum(bank: World) -> None:
    bank.execute(withdraw("a", 9_999), CASH, identify(ApproveWithdrawal("w-1"), "bob"))
    clear_cases(bank)
    assert get_levels(bank) == (70_001, 0)
    request = identify(RequestTransfer("t-1", "a", "c", eur(20_000), "house"), "ada")
    bank.execute(request, identify(ApproveTransfer("t-1"), "bob"))
    bank.assert_rejected(withdraw("a", 2), NEEDS_APPROVAL)
    bank.now += 25 * HOUR
    bank.execute(withdraw("a", 10_000))
    folds.compare(bank)


@pytest.mark.parametrize(
    ("caller", "on_behalf_of"), [("ada", ""), ("shop", ""), ("app", "ada"), ("shop", "bob"), ("ada", "bob")]
)
def test_nobody_approves_what_they_have_requested(bank: World, caller: str, on_behalf_of: str) -> None:
    bank.execute(CASH, identify(RequestTransfer("t-1", "a", "c", eur(20_000), "house"), "shop", "ada"))
    approvals = {
        "WITHDRAWAL_SAME_CALLER": ApproveWithdrawal("w-1"),
        "TRANSFER_SAME_CALLER": ApproveTransfer("t-1"),
    }
    for reason, approval in approvals.items():
        bank.assert_rejected(identify(approval, caller, on_behalf_of), reason)
        bank.execute(identify(approval, "app", "bob"))
        clear_cases(bank)


def test_a_withdrawal_is_requested_and_approved_once(bank: World) -> None:
    bank.assert_rejected(withdraw("a", 20_000), NEEDS_APPROVAL)
    bank.assert_rejected(replace(CASH, account_id="x"), "ACCOUNT_NOT_FOUND")
    bank.assert_rejected(replace(CASH, amount=Money("USD", 1)), "CURRENCY_MISMATCH")
    bank.assert_rejected(identify(ApproveWithdrawal("w-1"), "bob"), "WITHDRAWAL_NOT_FOUND")
    bank.execute(CASH)
    bank.assert_unchanged(CASH)
    bank.assert_rejected(replace(CASH, amount=eur(1)), "WITHDRAWAL_EXISTS")
    approve = identify(ApproveWithdrawal("w-1"), "bob")
    bank.execute(approve)
    bank.assert_unchanged(approve)
    assert get_levels(bank) == (80_000, 0)
    bank.assert_rejected(DeclineWithdrawal("w-1", "no", "bob"), "WITHDRAWAL_ALREADY_PAID")
    folds.compare(bank)
    bank.assert_snapshots_decode()


def test_a_declined_withdrawal_is_over(bank: World) -> None:
    decline = DeclineWithdrawal("w-1", "no", "bob")
    bank.execute(CASH, decline)
    bank.assert_unchanged(decline)
    bank.assert_rejected(identify(ApproveWithdrawal("w-1"), "bob"), "WITHDRAWAL_ALREADY_DECLINED")
    assert get_levels(bank) == (100_000, 0)
    folds.compare(bank)


def test_funds_are_checked_when_a_withdrawal_is_approved(bank: World) -> None:
    bank.execute(replace(CASH, amount=eur(100_001)))
    bank.assert_rejected(identify(ApproveWithdrawal("w-1"), "bob"), "FUNDS_INSUFFICIENT")


@pytest.mark.parametrize("seed", range(5))
def test_no_sum_of_a_day_is_over_the_threshold_without_two_people(seed: int) -> None:
    """Random payments of three people, directly and behind services; the events tell who paid what when."""
    rng, paid = random.Random(seed), defaultdict[str, list[tuple[datetime, int]]](list)
    world, accounts = make_bank(a=900_000, b=900_000, c=900_000), ("a", "b", "c")
    outside = 0
    for number in range(400):
        person, units = rng.choice(("ada", "bob", "cy")), rng.choice((1, 700, 2_500, 4_999, 10_000, 10_001))
        caller = rng.choice((person, "shop", "app"))
        who = (caller, "" if caller == person else person)
        sender, recipient = rng.sample(accounts, 2)
        id_ = str(rng.randrange(30))
        command = rng.choice(
            [
                withdraw(sender, units, *who),
                transfer(str(number), units, sender, recipient, *who),
                identify(RequestWithdrawal(id_, sender, eur(units), "cash"), *who),
                identify(ApproveWithdrawal(id_), *who),
            ]
        )
        before = len(world.history)
        with suppress(Rejected):
            world.execute(command)
        clear_cases(world)
        for _, event in world.history[before:]:
            if isinstance(event, MoneyWithdrawn):
                outside += event.amount.units
            if isinstance(event, TransferSent) or (
                isinstance(event, MoneyWithdrawn) and not event.withdrawal_id
            ):
                for key in (f"account {event.account_id}", f"person {person}"):
                    paid[key].append((world.now, units))
        world.now += timedelta(minutes=rng.choice((0, 1, 30, 200)))
    assert sum(get_account(world, name).balance.units for name in accounts) + outside == 2_700_000
    assert len(paid) == 6
    for key, payments in paid.items():
        for at, _ in payments:
            within = sum(units for time, units in payments if at - 24 * HOUR <= time <= at)
            assert within <= 10_000, key
    folds.compare(world)
    world.assert_snapshots_decode()
