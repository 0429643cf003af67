"""Compliance: what opens a case, that it freezes the account, and who may decide it."""

from typing import Any

import pytest

from command_server.contexts.banking import CONTEXT
from command_server.contexts.banking.domain.case import CASE, Status, make_case_id
from command_server.contexts.banking.domain.case_messages import (
    AddListedName,
    CaseOpened,
    ClearCase,
    ConfirmCase,
    RemoveListedName,
)
from command_server.contexts.banking.domain.messages import (
    CaptureHold,
    CaseKind,
    CloseAccount,
    Deposit,
    FreezeAccount,
    OpenAccount,
    RequestTransfer,
    Transfer,
    UnfreezeAccount,
    Withdraw,
)
from command_server.contexts.banking.domain.withdrawal_messages import ApproveWithdrawal, RequestWithdrawal
from contracts.names import normalize_name
from diptych_testing import folds
from diptych_testing.world import World, names_of
from tests.support.builders.bank import (
    deposit,
    eur,
    get_account,
    get_levels,
    hold,
    identify,
    make_bank,
    refund,
    transfer,
    withdraw,
)

CASE_ID = make_case_id("ada", "r-1")
MALLORY = "Mallory, Máx"


def clear(case_id: str, caller: str = "officer", on_behalf_of: str = "") -> Any:
    return identify(ClearCase(case_id, "she sold a car"), caller, on_behalf_of)


def list_cases(world: World) -> list[CaseOpened]:
    return [event for _, event in world.history if isinstance(event, CaseOpened)]


def list_mallory(world: World) -> World:
    world.execute(identify(AddListedName("MALLORY  max", "sanctions"), "officer"))
    return world


def test_a_large_deposit_is_booked_and_freezes_the_account() -> None:
    world = make_bank(a=9_999, b=0)
    assert names_of(world.execute(deposit("a", 10_000))) == ["MoneyDeposited", "AccountBlocked", "CaseOpened"]
    assert get_levels(world) == (19_999, 0)
    for command in (withdraw("a", 1), transfer("t-1", 1), hold("h-1", 1)):
        world.assert_rejected(command, "ACCOUNT_FROZEN", account_id="a")
    world.execute(deposit("a", 1))
    (case,) = list_cases(world)
    assert (case.kind, case.amount, case.causers) == (CaseKind.LARGE_CASH, eur(10_000), ("ada",))
    world.execute(clear(case.case_id), withdraw("a", 1))
    world.assert_unchanged(clear(case.case_id))
    folds.compare(world)
    world.assert_snapshots_decode()


@pytest.mark.parametrize(
    ("caller", "on_behalf_of"), [("shop", ""), ("teller", ""), ("app", "teller"), ("ada", ""), ("app", "ada")]
)
def test_nobody_decides_a_case_that_they_have_caused_or_that_is_about_them(
    caller: str, on_behalf_of: str
) -> None:
    world = make_bank(a=0)
    world.execute(deposit("a", 10_000, "shop", "teller"))
    (case,) = list_cases(world)
    world.assert_rejected(clear(case.case_id, caller, on_behalf_of), "CASE_SAME_CALLER")
    confirm = identify(ConfirmCase(case.case_id, "laundering"), caller, on_behalf_of)
    world.assert_rejected(confirm, "CASE_SAME_CALLER", case_id=case.case_id)


def test_a_confirmed_case_freezes_for_good() -> None:
    world = make_bank(a=0)
    world.execute(deposit("a", 10_000))
    (case,) = list_cases(world)
    confirm = identify(ConfirmCase(case.case_id, "laundering"), "officer")
    world.execute(confirm)
    world.assert_unchanged(confirm)
    world.assert_rejected(clear(case.case_id), "CASE_ALREADY_CONFIRMED")
    world.execute(FreezeAccount("a", "odd", incoming_too=True), UnfreezeAccount("a"))
    world.assert_rejected(withdraw("a", 1), "ACCOUNT_FROZEN")
    assert world.state(CASE.stream(case.case_id)).status is Status.CONFIRMED
    folds.compare(world)


def test_each_of_several_cases_keeps_an_account_frozen() -> None:
    world = make_bank(a=0)
    world.execute(FreezeAccount("a", "odd", incoming_too=False), deposit("a", 10_000), deposit("a", 20_000))
    one, other = list_cases(world)
    world.execute(clear(one.case_id), UnfreezeAccount("a"))
    world.assert_rejected(withdraw("a", 1), "ACCOUNT_FROZEN")
    folds.compare(world)
    world.execute(clear(other.case_id), withdraw("a", 1))
    folds.compare(world)


def test_smaller_payments_in_a_row_are_a_large_one_in_pieces() -> None:
    world = make_bank(a=0)
    world.execute(deposit("a", 9_000), deposit("a", 900))
    assert not list_cases(world)
    world.execute(deposit("a", 100))
    (case,) = list_cases(world)
    assert (case.kind, get_account(world).cash_in) == (CaseKind.STRUCTURING, ())
    world.execute(clear(case.case_id), deposit("a", 9_999), deposit("a", 9_999))
    assert len(list_cases(world)) == 1
    folds.compare(world)


def test_withdrawals_are_counted_by_themselves_and_refunds_are_no_cash() -> None:
    world = make_bank(a=0)
    world.execute(deposit("a", 5_000), refund("r-1", 30_000), withdraw("a", 5_000), withdraw("a", 4_000))
    world.execute(deposit("a", 4_000))
    assert not list_cases(world)
    world.execute(withdraw("a", 1_000))
    assert [case.kind for case in list_cases(world)] == [CaseKind.STRUCTURING]
    folds.compare(world)


def test_an_approved_large_withdrawal_is_a_case_that_neither_of_both_decides() -> None:
    world = make_bank(a=0)
    world.execute(
        refund("r-1", 30_000),
        identify(RequestWithdrawal("w-1", "a", eur(20_000), "car"), "teller"),
        identify(ApproveWithdrawal("w-1"), "boss"),
    )
    (case,) = list_cases(world)
    for caller in ("teller", "boss"):
        world.assert_rejected(clear(case.case_id, caller), "CASE_SAME_CALLER")
    world.execute(clear(case.case_id))
    folds.compare(world)


OUTGOING = {
    "Withdraw": Withdraw("a", eur(1), "cash", MALLORY),
    "Transfer": Transfer("t-1", "a", "b", eur(1), "rent", MALLORY),
    "RequestTransfer": RequestTransfer("t-1", "a", "b", eur(20_000), "house", MALLORY),
    "RequestWithdrawal": RequestWithdrawal("w-1", "a", eur(20_000), "cash", MALLORY),
}


@pytest.mark.parametrize("command", OUTGOING.values(), ids=OUTGOING)
def test_nothing_is_paid_to_a_listed_name_and_the_attempt_is_a_case(command: Any) -> None:
    world = list_mallory(make_bank(a=9_000, b=0))
    with pytest.raises(AssertionError):  # it records the case
        world.assert_rejected(identify(command, "ada"), "ACCOUNT_FROZEN", account_id="a")
    assert (get_levels(world), get_levels(world, "b")) == ((9_000, 0), (0, 0))
    (case,) = list_cases(world)
    assert (case.kind, case.counterparty_name) == (CaseKind.LISTED_NAME, MALLORY)
    world.assert_rejected(withdraw("a", 1), "ACCOUNT_FROZEN")
    world.execute(clear(case.case_id), withdraw("a", 1))
    folds.compare(world)


def test_what_comes_from_a_listed_name_is_booked_and_frozen() -> None:
    world = list_mallory(make_bank(a=0))
    world.execute(identify(Deposit("a", eur(1), "gift", MALLORY), "ada"))
    world.execute(identify(OpenAccount("m", "max", "EUR", None, None, MALLORY), "ada"))
    assert [case.account_id for case in list_cases(world)] == ["a", "m"]
    assert (get_levels(world), get_account(world, "m").cases) == ((1, 0), 1)
    world.assert_rejected(CloseAccount("m"), "ACCOUNT_FROZEN")
    folds.compare(world)


def test_a_name_is_on_the_list_until_it_is_removed() -> None:
    world = list_mallory(make_bank(a=9_000))
    world.assert_unchanged(identify(AddListedName(MALLORY, "again"), "officer"))
    world.execute(identify(RemoveListedName("max mallory", "an error"), "officer"))
    world.assert_unchanged(identify(RemoveListedName(MALLORY, "an error"), "officer"))
    world.execute(identify(OUTGOING["Withdraw"], "ada"))
    folds.compare(world)


def test_a_text_that_is_no_name_is_rejected() -> None:
    world = make_bank(a=9_000)
    for command in (
        Withdraw("a", eur(1), "cash", "***"),
        Deposit("a", eur(1), "cash", "***"),
        OpenAccount("b", "bob", "EUR", None, None, "***"),
        AddListedName("***", "sanctions"),
    ):
        world.assert_rejected(identify(command, "ada"), "NAME_INVALID", cause="EMPTY")


def test_a_hold_from_before_the_case_is_paid() -> None:
    world = make_bank(a=9_000)
    world.execute(hold("h-1", 10), deposit("a", 10_000), CaptureHold("h-1", None))
    assert get_levels(world) == (18_990, 0)
    folds.compare(world)


def test_a_case_that_does_not_exist_is_not_found() -> None:
    make_bank(a=0).assert_rejected(clear(CASE_ID), "CASE_NOT_FOUND", case_id=CASE_ID)


@pytest.mark.parametrize(
    "text", ["max mallory", "MALLORY, Max", "Máx  Mallory", "Max-Mallory", "Mallory Max"]
)
def test_spellings_of_a_name_are_one(text: str) -> None:
    assert normalize_name(text) == "mallory max"


@pytest.mark.parametrize(
    ("text", "cause"), [("", "EMPTY"), (" - ", "EMPTY"), ("Max\u200bMallory", "HIDDEN_CHARACTER")]
)
def test_a_name_without_a_form_says_why(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        normalize_name(text)


def test_every_command_that_moves_money_has_a_case_of_its_own_request() -> None:
    """Two requests of one caller, and equal requests of two callers, are different cases."""
    assert len({make_case_id(*each) for each in (("a", "1"), ("a", "2"), ("b", "1"))}) == 3
    assert CONTEXT.unique_values is not None
