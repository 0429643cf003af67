"""What banking's rules say of accounts, holds and transfers."""

from datetime import timedelta

import pytest

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
    ReleaseHold,
    RequestTransfer,
    UnfreezeAccount,
)
from command_server.kernel.money import Money
from tests.support.builders.bank import (
    DEADLINE,
    account,
    bank,
    deposit,
    eur,
    hold,
    levels,
    transfer,
    withdraw,
)
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World, kinds

USD = Money("USD", 1)
FIRM, CAPTURE, EXPIRE = FirmHold("h-1"), CaptureHold("h-1", None), ExpireHold("h-1")
RELEASE = ReleaseHold("h-1", "changed my mind")
REQUEST = RequestTransfer("t-1", "a", "b", eur(20_000), "house", caller="ada")


def test_an_account_is_opened_once_with_limits_in_its_currency() -> None:
    made = bank(a=0)
    made.refuses(OpenAccount("a", "ada", "EUR", None, None), "ACCOUNT_EXISTS", account_id="a")
    made.refuses(OpenAccount("b", "ada", "EUR", USD, None), "CURRENCY_MISMATCH", account="EUR", asked="USD")
    made.refuses(OpenAccount("b", "ada", "EUR", None, USD), "CURRENCY_MISMATCH")


@pytest.mark.parametrize(
    "command",
    [deposit("x", 1), withdraw("x", 1), hold("h", 1, "x"), transfer("t", 1, "x", "a"), CloseAccount("x")],
    ids=lambda command: type(command).__name__,
)
def test_what_was_never_opened_is_not_found(command: object) -> None:
    bank(a=1).refuses(command, "ACCOUNT_NOT_FOUND", account_id="x")


def test_what_leaves_is_there_overdraft_included() -> None:
    made = bank(a=10)
    made.refuses(withdraw("a", 11), "FUNDS_INSUFFICIENT", available="10.00 EUR", requested="11.00 EUR")
    made.do(withdraw("a", 10))
    made.do(OpenAccount("b", "ada", "EUR", eur(5), None), withdraw("b", 5))
    assert levels(made, "b") == (-5, 0)
    made.refuses(withdraw("b", 1), "FUNDS_INSUFFICIENT", available="0.00 EUR")


def test_currencies_are_not_mixed() -> None:
    made = bank(a=10)
    made.do(OpenAccount("d", "ada", "USD", None, None))
    made.refuses(Deposit("a", USD, "pay"), "CURRENCY_MISMATCH")
    made.refuses(transfer("t-1", 1, "a", "d"), "CURRENCY_MISMATCH", account="USD", asked="EUR")


def test_so_much_leaves_on_a_day_and_not_more() -> None:
    made = bank(b=0)
    made.do(OpenAccount("a", "ada", "EUR", None, eur(10)), deposit("a", 100), withdraw("a", 6))
    made.refuses(transfer("t-1", 5), "DAILY_LIMIT_EXCEEDED", limit="10.00 EUR", left="6.00 EUR")
    made.do(transfer("t-1", 4))
    made.refuses(withdraw("a", 1), "DAILY_LIMIT_EXCEEDED")
    made.now = (NOW + timedelta(days=1)).replace(hour=0, minute=0, second=0)
    made.do(withdraw("a", 10))
    made.refuses(withdraw("a", 1), "DAILY_LIMIT_EXCEEDED")
    made.reloaded()


def test_a_transfer_gives_and_takes_at_once() -> None:
    made = bank(a=10, b=1)
    assert kinds(made.do(transfer("t-1", 4))) == ["TransferMade", "TransferSent", "TransferReceived"]
    assert (levels(made, "a"), levels(made, "b")) == ((6, 0), (5, 0))
    made.nothing(transfer("t-1", 4))
    made.refuses(transfer("t-1", 5), "TRANSFER_EXISTS", transfer_id="t-1")
    made.refuses(transfer("t-2", 7), "FUNDS_INSUFFICIENT")
    made.refuses(transfer("t-2", 1, "a", "a"), "TRANSFER_ACCOUNT_SAME", account_id="a")


def test_a_large_transfer_needs_two() -> None:
    made = bank(a=30_000, b=0)
    made.refuses(transfer("t-1", 10_001), "TRANSFER_NEEDS_APPROVAL", above="10000")
    made.do(REQUEST)
    made.nothing(REQUEST)
    assert levels(made) == (30_000, 0)
    made.refuses(ApproveTransfer("t-1", "ada"), "TRANSFER_SAME_CALLER", transfer_id="t-1")
    made.do(ApproveTransfer("t-1", "bob"))
    assert (levels(made, "a"), levels(made, "b")) == ((10_000, 0), (20_000, 0))
    made.nothing(ApproveTransfer("t-1", "bob"))
    made.refuses(DeclineTransfer("t-1", "no", "bob"), "TRANSFER_ALREADY_MADE", transfer_id="t-1")
    made.refuses(transfer("t-1", 20_000), "TRANSFER_EXISTS")


def test_what_a_request_asks_for_must_be_there_when_it_is_approved() -> None:
    made = bank(a=30_000, b=0)
    made.do(REQUEST, withdraw("a", 15_000))
    made.refuses(ApproveTransfer("t-1", "bob"), "FUNDS_INSUFFICIENT")
    made.do(DeclineTransfer("t-1", "too much", "bob"))
    made.nothing(DeclineTransfer("t-1", "too much", "bob"))
    made.refuses(ApproveTransfer("t-1", "bob"), "TRANSFER_ALREADY_DECLINED")
    made.refuses(ApproveTransfer("t-2", "bob"), "TRANSFER_NOT_FOUND", transfer_id="t-2")


def test_a_frozen_account_gives_nothing_and_takes_nothing_where_so_asked() -> None:
    made = bank(a=10, b=10)
    made.do(hold("h-1", 2), FreezeAccount("a", "odd", incoming_too=False))
    for command in (withdraw("a", 1), transfer("t-1", 1), hold("h-2", 1)):
        made.refuses(command, "ACCOUNT_FROZEN", account_id="a")
    made.do(deposit("a", 1), CAPTURE)
    made.nothing(FreezeAccount("a", "odd", incoming_too=False))
    made.do(FreezeAccount("a", "very odd", incoming_too=True))
    made.refuses(deposit("a", 1), "ACCOUNT_FROZEN")
    made.refuses(transfer("t-1", 1, "b", "a"), "ACCOUNT_FROZEN")
    made.do(UnfreezeAccount("a"), withdraw("a", 9))
    made.nothing(UnfreezeAccount("a"))


def test_an_account_is_closed_when_it_is_empty() -> None:
    made = bank(a=10)
    made.do(hold("h-1", 10))
    made.refuses(CloseAccount("a"), "ACCOUNT_NOT_EMPTY", account_id="a")
    made.do(RELEASE, withdraw("a", 10), CloseAccount("a"))
    made.nothing(CloseAccount("a"))
    for command in (deposit("a", 1), withdraw("a", 1), FreezeAccount("a", "odd", False), hold("h-2", 1)):
        made.refuses(command, "ACCOUNT_CLOSED", account_id="a")


@pytest.fixture
def held() -> World:
    """An account of ten, four of them held."""
    made = bank(a=10)
    made.do(hold("h-1", 4))
    return made


def test_what_is_held_does_not_leave(held: World) -> None:
    assert levels(held) == (10, 4)
    held.refuses(withdraw("a", 7), "FUNDS_INSUFFICIENT", available="6.00 EUR")
    held.refuses(hold("h-2", 7), "FUNDS_INSUFFICIENT")
    held.nothing(hold("h-1", 4))
    held.refuses(hold("h-1", 5), "HOLD_EXISTS", hold_id="h-1")
    held.refuses(hold("h-2", 1, deadline=NOW), "HOLD_DEADLINE_INVALID")
    held.refuses(hold("h-2", 1, deadline=NOW + timedelta(days=8)), "HOLD_DEADLINE_INVALID")


def test_a_hold_is_captured_in_part_and_the_rest_is_free(held: World) -> None:
    held.refuses(CaptureHold("h-1", eur(5)), "HOLD_TOO_SMALL", hold_id="h-1")
    held.refuses(CaptureHold("h-1", USD), "CURRENCY_MISMATCH")
    held.do(CaptureHold("h-1", eur(3)))
    assert levels(held) == (7, 0)
    held.nothing(CaptureHold("h-1", eur(3)))
    held.nothing(CAPTURE)
    held.nothing(EXPIRE)
    held.refuses(CaptureHold("h-1", eur(2)), "HOLD_ALREADY_CAPTURED")
    held.refuses(RELEASE, "HOLD_ALREADY_CAPTURED", hold_id="h-1")
    held.nothing(hold("h-1", 4))


def test_a_hold_that_is_released_is_over(held: World) -> None:
    held.do(FIRM, RELEASE)
    assert levels(held) == (10, 0)
    held.nothing(RELEASE)
    held.nothing(EXPIRE)
    for command in (FIRM, CAPTURE):
        held.refuses(command, "HOLD_ALREADY_RELEASED", hold_id="h-1")


def test_an_open_hold_ends_with_its_deadline_and_a_firm_one_does_not(held: World) -> None:
    held.do(hold("h-2", 1), FirmHold("h-2"))
    held.refuses(EXPIRE, "HOLD_NOT_EXPIRED", deadline=str(DEADLINE))
    held.now = DEADLINE
    for command in (FIRM, CAPTURE):
        held.refuses(command, "HOLD_EXPIRED", hold_id="h-1")
    held.do(EXPIRE)
    held.nothing(ExpireHold("h-2"))
    held.do(CaptureHold("h-2", None))
    assert levels(held) == (9, 0)
    held.reloaded()


def test_an_accounts_state_does_not_grow_with_its_holds() -> None:
    made = bank(a=9_000)
    made.do(*(hold(f"h-{n}", 1) for n in range(1_000, 1_010)))
    before = len(made.snapshot("banking.account.a"))
    made.do(*(hold(f"h-{n}", 1) for n in range(1_010, 2_010)))
    assert len(made.snapshot("banking.account.a")) == before + len("1010") - len("10")
    assert account(made).held == eur(1_010)
