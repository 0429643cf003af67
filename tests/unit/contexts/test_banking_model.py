"""Banking behaves like its model, and the sum of all money is constant."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from command_server.contexts.banking import CONTEXT
from command_server.contexts.banking.domain.account_opening import OVERDRAFT
from command_server.contexts.banking.domain.case import Case
from command_server.contexts.banking.domain.case import Status as CaseStatus
from command_server.contexts.banking.domain.case_messages import ClearCase, ConfirmCase
from command_server.contexts.banking.domain.messages import (
    ApproveTransfer,
    CaptureHold,
    CloseAccount,
    DeclineTransfer,
    ExpireHold,
    FirmHold,
    FreezeAccount,
    OpenAccount,
    ReleaseHold,
    RequestTransfer,
    UnfreezeAccount,
)
from command_server.kernel.decider import Rejected
from diptych_testing import folds
from diptych_testing.world import World
from tests.support.builders.bank import deposit, eur, get_account, hold, refund, transfer, withdraw

ACCOUNTS = ("a", "b", "c")
accounts, ids = st.sampled_from(ACCOUNTS), st.integers(1, 4).map(str)
amounts = st.integers(1, 9) | st.integers(9_990, 10_010)
callers = st.sampled_from(["ada", "bob"])


@dataclass
class AccountModel:
    """The expected state of an account, in whole euros."""

    overdraft: int
    daily: int | None
    balance: int = 0
    frozen: str = ""
    open: bool = True
    withdrawn: dict[Any, int] = field(default_factory=dict)
    """Withdrawals and sent transfers by day."""
    cash: dict[str, list[tuple[Any, int]]] = field(default_factory=lambda: {"in": [], "out": []})
    """Deposits and withdrawals below 10,000 euros since the last case about such: time and amount."""
    cases: int = 0
    """The cases that keep it frozen."""


class BankingMachine(RuleBasedStateMachine):
    """Executes random commands and keeps the expected accounts, holds and transfers."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*CONTEXT.deciders)
        self.accounts: dict[str, AccountModel] = {}
        self.holds: dict[str, dict[str, Any]] = {}
        self.transfers: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, tuple[str, int]] = {}
        self.alone: list[tuple[Any, str, str, int]] = []
        """Payments without an approval: time, account, payer and amount."""
        self.paid_out = 0
        """Withdrawals and captured holds minus deposits and refunds."""

    @initialize(overdraft=st.integers(0, 20), daily=st.none() | st.integers(1, 20_000))
    def begin(self, overdraft: int, daily: int | None) -> None:
        for name in ACCOUNTS:
            limit = None if daily is None else eur(daily)
            scopes = frozenset({OVERDRAFT})
            self.world.execute(OpenAccount(name, "ada", "EUR", eur(overdraft), limit, scopes=scopes))
            self.accounts[name] = AccountModel(overdraft, daily)

    def execute(self, command: Any, allowed: bool) -> bool:
        """Execute a command and assert that it is rejected unless `allowed`; return `allowed`."""
        try:
            self.world.execute(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        return True

    def sum_holds(self, name: str) -> int:
        active = (h for h in self.holds.values() if h["state"] in ("open", "firm") and h["account"] == name)
        return sum(each["amount"] for each in active)

    def can_pay(self, name: str, amount: int) -> bool:
        account = self.accounts[name]
        return (
            account.open
            and not account.frozen
            and not account.cases
            and account.balance - self.sum_holds(name) + account.overdraft >= amount
        )

    def is_within_daily_limit(self, name: str, amount: int) -> bool:
        account = self.accounts[name]
        return account.daily is None or account.withdrawn.get(self.today, 0) + amount <= account.daily

    def can_receive(self, name: str) -> bool:
        account = self.accounts[name]
        return account.open and account.frozen != "both"

    @property
    def today(self) -> Any:
        return self.world.now.date()

    def debit(self, name: str, amount: int) -> None:
        account = self.accounts[name]
        account.balance -= amount
        account.withdrawn[self.today] = account.withdrawn.get(self.today, 0) + amount

    def count_cash(self, name: str, direction: str, amount: int) -> None:
        """Note a payment in cash, and the case that it opens."""
        account = self.accounts[name]
        if amount >= 10_000:
            account.cases += 1
            return
        account.cash[direction].append((self.world.now, amount))
        since = self.window_start
        recent = [paid for at, paid in account.cash[direction] if at >= since]
        if len(recent) >= 3 and sum(recent) >= 10_000:
            account.cases += 1
            account.cash = {"in": [], "out": []}

    @property
    def window_start(self) -> Any:
        return self.world.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=24)

    @rule(name=accounts, amount=amounts)
    def deposit(self, name: str, amount: int) -> None:
        if self.execute(deposit(name, amount), allowed=self.can_receive(name)):
            self.accounts[name].balance += amount
            self.paid_out -= amount
            self.count_cash(name, "in", amount)

    @rule(name=accounts, confirmed=st.integers(0, 9).map(lambda number: number == 0))
    def decide_case(self, name: str, confirmed: bool) -> None:
        """Decide the first open case of an account. A confirmed one stays."""
        for stream, state in self.world.states.items():
            if isinstance(state, Case) and (state.account_id, state.status) == (name, CaseStatus.OPEN):
                case_id = stream.rpartition(".")[2]
                kind = ConfirmCase if confirmed else ClearCase
                self.world.execute(kind(case_id, "why not", "officer"))
                self.accounts[name].cases -= not confirmed
                return

    @rule(id_=ids, name=accounts, amount=amounts)
    def pay_refund(self, id_: str, name: str, amount: int) -> None:
        before = self.refunds.get(id_)
        possible = before is None and self.can_receive(name)
        if self.execute(refund(id_, amount, name), allowed=possible or before == (name, amount)) and possible:
            self.refunds[id_] = name, amount
            self.accounts[name].balance += amount
            self.paid_out -= amount

    def may_pay_alone(self, name: str, caller: str, amount: int) -> bool:
        since = self.window_start
        recent = [payment for payment in self.alone if payment[0] >= since]
        by_account = sum(paid for _, account, _, paid in recent if account == name)
        by_person = sum(paid for _, _, payer, paid in recent if payer == caller)
        return max(by_account, by_person) + amount <= 10_000

    @rule(name=accounts, amount=amounts, caller=callers)
    def withdraw(self, name: str, amount: int, caller: str) -> None:
        possible = self.can_pay(name, amount) and self.is_within_daily_limit(name, amount)
        possible = possible and self.may_pay_alone(name, caller, amount)
        if self.execute(withdraw(name, amount, caller), possible):
            self.debit(name, amount)
            self.alone.append((self.world.now, name, caller, amount))
            self.paid_out += amount
            self.count_cash(name, "out", amount)

    def can_transfer(self, sender: str, recipient: str, amount: int) -> bool:
        possible = self.can_pay(sender, amount) and self.is_within_daily_limit(sender, amount)
        return sender != recipient and possible and self.can_receive(recipient)

    def make_transfer(self, transfer_model: dict[str, Any]) -> None:
        self.debit(transfer_model["sender"], transfer_model["amount"])
        self.accounts[transfer_model["recipient"]].balance += transfer_model["amount"]
        transfer_model["state"] = "made"

    @rule(id_=ids, sender=accounts, recipient=accounts, amount=amounts, caller=callers)
    def transfer(self, id_: str, sender: str, recipient: str, amount: int, caller: str) -> None:
        requested = {"sender": sender, "recipient": recipient, "amount": amount, "by": ""}
        before = self.transfers.get(id_)
        same = before is not None and {key: before[key] for key in requested} == requested
        possible = before is None and self.may_pay_alone(sender, caller, amount)
        possible = possible and self.can_transfer(sender, recipient, amount)
        command = transfer(id_, amount, sender, recipient, caller)
        if self.execute(command, allowed=same or possible) and possible:
            self.transfers[id_] = requested
            self.alone.append((self.world.now, sender, caller, amount))
            self.make_transfer(requested)

    @rule(id_=ids, sender=accounts, recipient=accounts, amount=amounts, caller=callers)
    def request_transfer(self, id_: str, sender: str, recipient: str, amount: int, caller: str) -> None:
        requested = {"sender": sender, "recipient": recipient, "amount": amount}
        before = self.transfers.get(id_)
        same = (
            before is not None and before["by"] != "" and {key: before[key] for key in requested} == requested
        )
        request = RequestTransfer(id_, sender, recipient, eur(amount), "rent", caller=caller)
        possible = before is None and sender != recipient and self.accounts[sender].open
        if self.execute(request, allowed=same or possible) and before is None:
            self.transfers[id_] = {**requested, "by": caller, "state": "requested"}

    @rule(id_=ids, caller=callers)
    def approve_transfer(self, id_: str, caller: str) -> None:
        transfer_model = self.transfers.get(id_, {"state": "none"})
        pending = transfer_model["state"] == "requested" and transfer_model["by"] != caller
        possible = pending and self.can_transfer(
            transfer_model["sender"], transfer_model["recipient"], transfer_model["amount"]
        )
        if (
            self.execute(
                ApproveTransfer(id_, caller=caller), allowed=possible or transfer_model["state"] == "made"
            )
            and possible
        ):
            self.make_transfer(transfer_model)

    @rule(id_=ids, caller=callers)
    def decline_transfer(self, id_: str, caller: str) -> None:
        state = self.transfers.get(id_, {"state": "none"})["state"]
        if self.execute(
            DeclineTransfer(id_, "no", caller=caller), allowed=state in ("requested", "declined")
        ):
            self.transfers[id_]["state"] = "declined"

    @rule(id_=ids, name=accounts, amount=amounts, minutes=st.integers(1, 60))
    def place_hold(self, id_: str, name: str, amount: int, minutes: int) -> None:
        deadline = self.world.now + timedelta(minutes=minutes)
        requested = {"account": name, "amount": amount, "deadline": deadline}
        before = self.holds.get(id_)
        same = before is not None and {key: before[key] for key in requested} == requested
        possible = before is None and self.can_pay(name, amount)
        if self.execute(hold(id_, amount, name, deadline), allowed=same or possible) and possible:
            self.holds[id_] = {**requested, "state": "open", "captured": 0}

    def get_state(self, id_: str) -> str:
        hold_model = self.holds.get(id_)
        if hold_model is None:
            return "none"
        late = hold_model["state"] == "open" and hold_model["deadline"] <= self.world.now
        return "late" if late else str(hold_model["state"])

    @rule(id_=ids)
    def firm(self, id_: str) -> None:
        if self.execute(FirmHold(id_), allowed=self.get_state(id_) in ("open", "firm")):
            self.holds[id_]["state"] = "firm"

    @rule(id_=ids)
    def release(self, id_: str) -> None:
        if self.execute(ReleaseHold(id_, "no"), self.get_state(id_) in ("open", "late", "firm", "released")):
            self.holds[id_]["state"] = "released"

    @rule(id_=ids)
    def expire(self, id_: str) -> None:
        state = self.get_state(id_)
        if self.execute(ExpireHold(id_), allowed=state not in ("none", "open")) and state == "late":
            self.holds[id_]["state"] = "released"

    @rule(id_=ids, amount=st.none() | amounts)
    def capture(self, id_: str, amount: int | None) -> None:
        state, hold_model = self.get_state(id_), self.holds.get(id_, {"amount": 0, "captured": 0})
        captured_amount = amount or hold_model["amount"]
        possible = state in ("open", "firm") and captured_amount <= hold_model["amount"]
        repeated = state == "captured" and amount in (None, hold_model["captured"])
        command = CaptureHold(id_, None if amount is None else eur(amount))
        if self.execute(command, allowed=possible or repeated) and possible:
            hold_model.update(state="captured", captured=captured_amount)
            self.accounts[hold_model["account"]].balance -= captured_amount
            self.paid_out += captured_amount

    @rule(name=accounts, both=st.booleans())
    def freeze(self, name: str, both: bool) -> None:
        if self.execute(FreezeAccount(name, "odd", both), allowed=self.accounts[name].open):
            self.accounts[name].frozen = "both" if both else "out"

    @rule(name=accounts)
    def unfreeze(self, name: str) -> None:
        if self.execute(UnfreezeAccount(name), allowed=self.accounts[name].open):
            self.accounts[name].frozen = ""

    @rule()
    def close(self) -> None:
        account = self.accounts["c"]  # the other accounts stay open
        empty = account.balance == 0 and self.sum_holds("c") == 0 and not account.cases
        if self.execute(CloseAccount("c"), allowed=empty or not account.open):
            account.open = False

    @rule(minutes=st.integers(1, 90) | st.just(24 * 60))
    def wait(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    @invariant()
    def every_account_matches_the_model(self) -> None:
        for name, expected in self.accounts.items():
            account = get_account(self.world, name)
            assert (account.balance, account.held) == (eur(expected.balance), eur(self.sum_holds(name)))
            assert account.available.units >= 0
            assert account.cases == expected.cases

    @invariant()
    def the_sum_of_all_money_is_constant(self) -> None:
        balances = (get_account(self.world, name).balance.units for name in self.accounts)
        assert sum(balances) + self.paid_out == 0

    def teardown(self) -> None:
        self.world.assert_snapshots_decode()
        folds.compare(self.world)


BankingMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=50)
TestBankingModel = BankingMachine.TestCase


@pytest.mark.long
def test_banking_follows_the_model_in_many_more_runs() -> None:
    run_state_machine_as_test(BankingMachine, settings=settings(max_examples=480, stateful_step_count=50))
