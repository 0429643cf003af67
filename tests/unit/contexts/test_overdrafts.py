"""Overdraft limits: one person sets a small one, two people a large one, and none below what is in use."""

import pytest

from command_server.contexts.banking.domain.account_opening import OVERDRAFT
from command_server.contexts.banking.domain.messages import CloseAccount, OpenAccount
from command_server.contexts.banking.domain.overdraft_messages import (
    ApproveOverdraft,
    ChangeOverdraft,
    DeclineOverdraft,
    RequestOverdraft,
)
from command_server.kernel.money import Money
from diptych_testing import folds
from diptych_testing.world import World
from tests.support.builders.bank import eur, get_account, get_levels, hold, identify, make_bank, withdraw

REQUEST = identify(RequestOverdraft("l-1", "a", eur(20_000)), "shop", "ada")
APPROVE = identify(ApproveOverdraft("l-1"), "bob")


@pytest.fixture
def bank() -> World:
    return make_bank(a=100)


def test_one_person_sets_a_limit_up_to_the_threshold(bank: World) -> None:
    change = ChangeOverdraft("a", eur(10_000))
    bank.execute(change)
    bank.assert_unchanged(change)
    bank.assert_rejected(ChangeOverdraft("a", eur(10_001)), "OVERDRAFT_NEEDS_APPROVAL", above="10000")
    bank.execute(withdraw("a", 200), ChangeOverdraft("a", eur(100)))
    bank.assert_rejected(withdraw("a", 1), "FUNDS_INSUFFICIENT")
    assert get_levels(bank) == (-100, 0)
    folds.compare(bank)


def test_no_limit_is_below_what_is_overdrawn_or_held(bank: World) -> None:
    bank.execute(ChangeOverdraft("a", eur(50)), hold("h-1", 120))
    bank.assert_rejected(ChangeOverdraft("a", eur(19)), "OVERDRAFT_IN_USE", account_id="a")
    bank.execute(ChangeOverdraft("a", eur(20)))
    folds.compare(bank)


def test_a_higher_limit_is_approved_by_another_person(bank: World) -> None:
    bank.execute(REQUEST)
    bank.assert_unchanged(REQUEST)
    assert get_account(bank).overdraft_limit == eur(0)
    for caller, on_behalf_of in (("ada", ""), ("shop", ""), ("app", "ada")):
        approval = identify(ApproveOverdraft("l-1"), caller, on_behalf_of)
        bank.assert_rejected(approval, "OVERDRAFT_SAME_CALLER", overdraft_id="l-1")
    bank.execute(APPROVE)
    bank.assert_unchanged(APPROVE)
    assert get_account(bank).overdraft_limit == eur(20_000)
    bank.assert_rejected(ChangeOverdraft("a", eur(20_001)), "OVERDRAFT_NEEDS_APPROVAL")
    bank.execute(ChangeOverdraft("a", eur(15_000)))
    bank.assert_rejected(DeclineOverdraft("l-1", "no", "bob"), "OVERDRAFT_ALREADY_APPROVED")
    folds.compare(bank)
    bank.assert_snapshots_decode()


def test_a_declined_limit_is_over(bank: World) -> None:
    decline = DeclineOverdraft("l-1", "no", "bob")
    bank.execute(REQUEST, decline)
    bank.assert_unchanged(decline)
    bank.assert_rejected(APPROVE, "OVERDRAFT_ALREADY_DECLINED")
    folds.compare(bank)


def test_a_large_limit_is_not_there_from_the_start_or_in_another_currency(bank: World) -> None:
    opened = OpenAccount("b", "ada", "EUR", eur(10_001), None, scopes=frozenset({OVERDRAFT}))
    bank.assert_rejected(opened, "OVERDRAFT_NEEDS_APPROVAL")
    bank.assert_rejected(ChangeOverdraft("a", Money("USD", 1)), "CURRENCY_MISMATCH")
    bank.assert_rejected(RequestOverdraft("l-2", "a", Money("USD", 1)), "CURRENCY_MISMATCH")
    bank.assert_rejected(RequestOverdraft("l-2", "x", eur(1)), "ACCOUNT_NOT_FOUND")
    bank.assert_rejected(APPROVE, "OVERDRAFT_NOT_FOUND", overdraft_id="l-1")
    bank.execute(REQUEST)
    bank.assert_rejected(RequestOverdraft("l-1", "a", eur(1)), "OVERDRAFT_EXISTS")
    bank.execute(withdraw("a", 100), CloseAccount("a"))
    bank.assert_rejected(APPROVE, "ACCOUNT_CLOSED")
