"""Rules of banking: accounts, holds, transfers and refunds."""

from dataclasses import replace
from datetime import timedelta

import pytest

from command_server.contexts.banking.domain.account_opening import OVERDRAFT
from command_server.contexts.banking.domain.messages import (
    ApproveTransfer,
    CaptureHold,
    CloseAccount,
    DeclineTransfer,
    Deposit,
    ExpireHold,
    FirmHold,
    FreezeAccount,
    OpenAccount,
    PayRefund,
    ReleaseHold,
    RequestTransfer,
    UnfreezeAccount,
)
from command_server.kernel.money import Money
from diptych_testing.scenario import NOW
from diptych_testing.world import World, names_of
from tests.support.builders.bank import (
    DEADLINE,
    deposit,
    eur,
    get_account,
    get_levels,
    hold,
    make_bank,
    refund,
    transfer,
    withdraw,
)

USD = Money("USD", 1)
FIRM, CAPTURE, EXPIRE = FirmHold("h-1"), CaptureHold("h-1", None), ExpireHold("h-1")
RELEASE = ReleaseHold("h-1", "changed my mind")
REQUEST = RequestTransfer("t-1", "a", "b", eur(20_000), "house", caller="ada")


def test_an_account_is_opened_once_with_limits_in_its_currency() -> None:
    world = make_bank(a=0)
    world.assert_rejected(OpenAccount("a", "ada", "EUR", None, None), "ACCOUNT_EXISTS", account_id="a")
    world.assert_rejected(
        OpenAccount("b", "ada", "EUR", USD, None), "CURRENCY_MISMATCH", account="EUR", asked="USD"
    )
    world.assert_rejected(OpenAccount("b", "ada", "EUR", None, USD), "CURRENCY_MISMATCH")


@pytest.mark.parametrize(
    "command",
    [deposit("x", 1), withdraw("x", 1), hold("h", 1, "x"), transfer("t", 1, "x", "a"), CloseAccount("x")],
    ids=lambda command: type(command).__name__,
)
def test_a_command_for_an_unknown_account_is_not_found(command: object) -> None:
    make_bank(a=1).assert_rejected(command, "ACCOUNT_NOT_FOUND", account_id="x")


def test_a_withdrawal_is_limited_by_balance_and_overdraft() -> None:
    world = make_bank(a=10)
    world.assert_rejected(
        withdraw("a", 11), "FUNDS_INSUFFICIENT", available="10.00 EUR", requested="11.00 EUR"
    )
    world.execute(withdraw("a", 10))
    opened = OpenAccount("b", "ada", "EUR", eur(5), None)
    world.assert_rejected(opened, "OVERDRAFT_NOT_ALLOWED", scope=OVERDRAFT)
    world.execute(replace(opened, scopes=frozenset({OVERDRAFT})), withdraw("b", 5))
    assert get_levels(world, "b") == (-5, 0)
    world.assert_rejected(withdraw("b", 1), "FUNDS_INSUFFICIENT", available="0.00 EUR")


def test_currencies_are_not_mixed() -> None:
    world = make_bank(a=10)
    world.execute(OpenAccount("d", "ada", "USD", None, None))
    world.assert_rejected(Deposit("a", USD, "pay"), "CURRENCY_MISMATCH")
    world.assert_rejected(transfer("t-1", 1, "a", "d"), "CURRENCY_MISMATCH", account="USD", asked="EUR")


def test_the_daily_limit_counts_withdrawals_and_sent_transfers() -> None:
    world = make_bank(b=0)
    world.execute(OpenAccount("a", "ada", "EUR", None, eur(10)), deposit("a", 100), withdraw("a", 6))
    world.assert_rejected(transfer("t-1", 5), "DAILY_LIMIT_EXCEEDED", limit="10.00 EUR", left="6.00 EUR")
    world.execute(transfer("t-1", 4))
    world.assert_rejected(withdraw("a", 1), "DAILY_LIMIT_EXCEEDED")
    world.now = (NOW + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    world.execute(withdraw("a", 10))
    world.assert_rejected(withdraw("a", 1), "DAILY_LIMIT_EXCEEDED")
    world.assert_snapshots_decode()


def test_a_transfer_changes_both_accounts_at_once() -> None:
    world = make_bank(a=10, b=1)
    events = names_of(world.execute(transfer("t-1", 4)))
    assert events == ["TransferMade", "TransferSent", "TransferReceived", "PaymentCounted"]
    assert (get_levels(world, "a"), get_levels(world, "b")) == ((6, 0), (5, 0))
    world.assert_unchanged(transfer("t-1", 4))
    world.assert_rejected(transfer("t-1", 5), "TRANSFER_EXISTS", transfer_id="t-1")
    world.assert_rejected(transfer("t-2", 7), "FUNDS_INSUFFICIENT")
    world.assert_rejected(transfer("t-2", 1, "a", "a"), "TRANSFER_ACCOUNT_SAME", account_id="a")


def test_a_large_transfer_needs_the_approval_of_a_second_person() -> None:
    world = make_bank(a=30_000, b=0)
    world.assert_rejected(transfer("t-1", 10_001), "TRANSFER_NEEDS_APPROVAL", above="10000")
    world.execute(REQUEST)
    world.assert_unchanged(REQUEST)
    assert get_levels(world) == (30_000, 0)
    world.assert_rejected(ApproveTransfer("t-1", "ada"), "TRANSFER_SAME_CALLER", transfer_id="t-1")
    world.execute(ApproveTransfer("t-1", "bob"))
    assert (get_levels(world, "a"), get_levels(world, "b")) == ((10_000, 0), (20_000, 0))
    world.assert_unchanged(ApproveTransfer("t-1", "bob"))
    world.assert_rejected(DeclineTransfer("t-1", "no", "bob"), "TRANSFER_ALREADY_MADE", transfer_id="t-1")
    world.assert_rejected(transfer("t-1", 20_000), "TRANSFER_EXISTS")


def test_funds_are_checked_when_a_requested_transfer_is_approved() -> None:
    world = make_bank(a=20_001, b=0)
    world.execute(REQUEST, withdraw("a", 2))
    world.assert_rejected(ApproveTransfer("t-1", "bob"), "FUNDS_INSUFFICIENT")
    world.execute(DeclineTransfer("t-1", "too much", "bob"))
    world.assert_unchanged(DeclineTransfer("t-1", "too much", "bob"))
    world.assert_rejected(ApproveTransfer("t-1", "bob"), "TRANSFER_ALREADY_DECLINED")
    world.assert_rejected(ApproveTransfer("t-2", "bob"), "TRANSFER_NOT_FOUND", transfer_id="t-2")


def test_a_freeze_blocks_outgoing_and_on_demand_incoming_payments() -> None:
    world = make_bank(a=10, b=10)
    world.execute(hold("h-1", 2), FreezeAccount("a", "odd", incoming_too=False))
    for command in (withdraw("a", 1), transfer("t-1", 1), hold("h-2", 1)):
        world.assert_rejected(command, "ACCOUNT_FROZEN", account_id="a")
    world.execute(deposit("a", 1), CAPTURE)
    world.assert_unchanged(FreezeAccount("a", "odd", incoming_too=False))
    world.execute(FreezeAccount("a", "very odd", incoming_too=True))
    world.assert_rejected(deposit("a", 1), "ACCOUNT_FROZEN")
    world.assert_rejected(transfer("t-1", 1, "b", "a"), "ACCOUNT_FROZEN")
    world.execute(UnfreezeAccount("a"), withdraw("a", 9))
    world.assert_unchanged(UnfreezeAccount("a"))


def test_an_account_is_closed_when_it_is_empty() -> None:
    world = make_bank(a=10)
    world.execute(hold("h-1", 10))
    world.assert_rejected(CloseAccount("a"), "ACCOUNT_NOT_EMPTY", account_id="a")
    world.execute(RELEASE, withdraw("a", 10), CloseAccount("a"))
    world.assert_unchanged(CloseAccount("a"))
    for command in (deposit("a", 1), withdraw("a", 1), FreezeAccount("a", "odd", False), hold("h-2", 1)):
        world.assert_rejected(command, "ACCOUNT_CLOSED", account_id="a")


@pytest.fixture
def held() -> World:
    """An account with ten euros, four of them held."""
    world = make_bank(a=10)
    world.execute(hold("h-1", 4))
    return world


def test_held_money_cannot_be_withdrawn(held: World) -> None:
    assert get_levels(held) == (10, 4)
    held.assert_rejected(withdraw("a", 7), "FUNDS_INSUFFICIENT", available="6.00 EUR")
    held.assert_rejected(hold("h-2", 7), "FUNDS_INSUFFICIENT")
    held.assert_unchanged(hold("h-1", 4))
    held.assert_rejected(hold("h-1", 5), "HOLD_EXISTS", hold_id="h-1")
    held.assert_rejected(hold("h-2", 1, deadline=NOW), "HOLD_DEADLINE_INVALID")
    held.assert_rejected(hold("h-2", 1, deadline=NOW + timedelta(days=8)), "HOLD_DEADLINE_INVALID")


def test_a_hold_is_captured_in_part_and_the_rest_is_free(held: World) -> None:
    held.assert_rejected(CaptureHold("h-1", eur(5)), "HOLD_TOO_SMALL", hold_id="h-1")
    held.assert_rejected(CaptureHold("h-1", USD), "CURRENCY_MISMATCH")
    held.execute(CaptureHold("h-1", eur(3)))
    assert get_levels(held) == (7, 0)
    held.assert_unchanged(CaptureHold("h-1", eur(3)))
    held.assert_unchanged(CAPTURE)
    held.assert_unchanged(EXPIRE)
    held.assert_rejected(CaptureHold("h-1", eur(2)), "HOLD_ALREADY_CAPTURED")
    held.assert_rejected(RELEASE, "HOLD_ALREADY_CAPTURED", hold_id="h-1")
    held.assert_unchanged(hold("h-1", 4))


def test_a_released_hold_cannot_be_captured(held: World) -> None:
    held.execute(FIRM, RELEASE)
    assert get_levels(held) == (10, 0)
    held.assert_unchanged(RELEASE)
    held.assert_unchanged(EXPIRE)
    for command in (FIRM, CAPTURE):
        held.assert_rejected(command, "HOLD_ALREADY_RELEASED", hold_id="h-1")


def test_an_open_hold_ends_with_its_deadline_and_a_firm_one_does_not(held: World) -> None:
    held.execute(hold("h-2", 1), FirmHold("h-2"))
    held.assert_rejected(EXPIRE, "HOLD_NOT_EXPIRED", deadline=str(DEADLINE))
    held.now = DEADLINE
    for command in (FIRM, CAPTURE):
        held.assert_rejected(command, "HOLD_EXPIRED", hold_id="h-1")
    held.execute(EXPIRE)
    held.assert_unchanged(ExpireHold("h-2"))
    held.execute(CaptureHold("h-2", None))
    assert get_levels(held) == (9, 0)
    held.assert_snapshots_decode()


def test_an_accounts_state_does_not_grow_with_its_holds() -> None:
    world = make_bank(a=9_000)
    world.execute(*(hold(f"h-{n}", 1) for n in range(1_000, 1_010)))
    before = len(world.snapshot("banking.account.a"))
    world.execute(*(hold(f"h-{n}", 1) for n in range(1_010, 2_010)))
    assert len(world.snapshot("banking.account.a")) == before + len("1010") - len("10")
    assert get_account(world).held == eur(1_010)


def test_a_refund_is_paid_once_for_its_id() -> None:
    world = make_bank(a=10, b=10)
    assert names_of(world.execute(refund("r-1", 3))) == ["MoneyDeposited", "RefundPaid"]
    world.execute(withdraw("a", 3))
    world.assert_unchanged(refund("r-1", 3))
    assert (get_levels(world), get_levels(world, "b")) == ((10, 0), (10, 0))
    assert names_of(world.execute(refund("r-2", 3))) == ["MoneyDeposited", "RefundPaid"]


@pytest.mark.parametrize(
    "other",
    [refund("r-1", 4), refund("r-1", 3, "b"), replace(refund("r-1", 3), reference="another order")],
    ids=["amount", "account", "reference"],
)
def test_another_refund_under_the_same_id_is_rejected(other: PayRefund) -> None:
    world = make_bank(a=10, b=10)
    world.execute(refund("r-1", 3))
    world.assert_rejected(other, "REFUND_EXISTS", refund_id="r-1")


def test_a_repeated_refund_is_done_although_its_account_takes_no_money_now() -> None:
    world = make_bank(a=10)
    world.execute(refund("r-1", 3), FreezeAccount("a", "odd", incoming_too=True))
    world.assert_unchanged(refund("r-1", 3))
    world.assert_rejected(refund("r-2", 3), "ACCOUNT_FROZEN")
    world.execute(UnfreezeAccount("a"), withdraw("a", 13), CloseAccount("a"))
    world.assert_unchanged(refund("r-1", 3))
    world.assert_rejected(refund("r-2", 3), "ACCOUNT_CLOSED")
    world.assert_rejected(refund("r-2", 3, "x"), "ACCOUNT_NOT_FOUND")
