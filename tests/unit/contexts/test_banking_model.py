"""Banking does what a plain model of it says, and money is neither made nor lost, as days pass."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from command_server.contexts.banking import CONTEXT
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
from tests.support.builders.bank import account, deposit, eur, hold, transfer, withdraw
from tests.support.harness import folds
from tests.support.harness.world import World

ACCOUNTS = ("a", "b", "c")
accounts, ids = some.sampled_from(ACCOUNTS), some.integers(1, 4).map(str)
amounts = some.integers(1, 9) | some.integers(9_990, 10_010)
people = some.sampled_from(["ada", "bob"])


@dataclass
class Page:
    """An account in a ledger kept by hand."""

    overdraft: int
    daily: int | None
    balance: int = 0
    frozen: str = ""
    open: bool = True
    left: dict[Any, int] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    """A ledger by hand, beside the domain."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(*CONTEXT.deciders)
        self.pages: dict[str, Page] = {}
        self.holds: dict[str, dict[str, Any]] = {}
        self.moves: dict[str, dict[str, Any]] = {}
        self.outside = 0

    @initialize(overdraft=some.integers(0, 20), daily=some.none() | some.integers(1, 20_000))
    def begin(self, overdraft: int, daily: int | None) -> None:
        for name in ACCOUNTS:
            limit = None if daily is None else eur(daily)
            self.world.do(OpenAccount(name, "ada", "EUR", eur(overdraft), limit))
            self.pages[name] = Page(overdraft, daily)

    def ask(self, command: Any, allowed: bool) -> bool:
        """Execute a command; it must be refused exactly where the ledger says so."""
        try:
            self.world.do(command)
        except Rejected as error:
            assert not allowed, error.reason
            return False
        assert allowed, command
        return True

    def held(self, name: str) -> int:
        standing = (h for h in self.holds.values() if h["state"] in ("open", "firm") and h["account"] == name)
        return sum(one["amount"] for one in standing)

    def gives(self, name: str, amount: int) -> bool:
        page = self.pages[name]
        return page.open and not page.frozen and page.balance - self.held(name) + page.overdraft >= amount

    def within_day(self, name: str, amount: int) -> bool:
        page = self.pages[name]
        return page.daily is None or page.left.get(self.today, 0) + amount <= page.daily

    def takes(self, name: str) -> bool:
        page = self.pages[name]
        return page.open and page.frozen != "both"

    @property
    def today(self) -> Any:
        return self.world.now.date()

    def leaves(self, name: str, amount: int) -> None:
        page = self.pages[name]
        page.balance -= amount
        page.left[self.today] = page.left.get(self.today, 0) + amount

    @rule(name=accounts, amount=amounts)
    def pay_in(self, name: str, amount: int) -> None:
        if self.ask(deposit(name, amount), allowed=self.takes(name)):
            self.pages[name].balance += amount
            self.outside -= amount

    @rule(name=accounts, amount=amounts)
    def pay_out(self, name: str, amount: int) -> None:
        if self.ask(withdraw(name, amount), self.gives(name, amount) and self.within_day(name, amount)):
            self.leaves(name, amount)
            self.outside += amount

    def can_move(self, giver: str, taker: str, amount: int) -> bool:
        possible = self.gives(giver, amount) and self.within_day(giver, amount)
        return giver != taker and possible and self.takes(taker)

    def move(self, one: dict[str, Any]) -> None:
        self.leaves(one["giver"], one["amount"])
        self.pages[one["taker"]].balance += one["amount"]
        one["state"] = "made"

    @rule(id_=ids, giver=accounts, taker=accounts, amount=amounts)
    def transfers(self, id_: str, giver: str, taker: str, amount: int) -> None:
        wanted = {"giver": giver, "taker": taker, "amount": amount, "by": ""}
        before = self.moves.get(id_)
        same = before is not None and {key: before[key] for key in wanted} == wanted
        possible = before is None and amount <= 10_000 and self.can_move(giver, taker, amount)
        if self.ask(transfer(id_, amount, giver, taker), allowed=same or possible) and possible:
            self.moves[id_] = wanted
            self.move(wanted)

    @rule(id_=ids, giver=accounts, taker=accounts, amount=amounts, who=people)
    def requests(self, id_: str, giver: str, taker: str, amount: int, who: str) -> None:
        wanted = {"giver": giver, "taker": taker, "amount": amount}
        before = self.moves.get(id_)
        same = before is not None and before["by"] != "" and {key: before[key] for key in wanted} == wanted
        request = RequestTransfer(id_, giver, taker, eur(amount), "rent", caller=who)
        if self.ask(request, allowed=same or (before is None and giver != taker)) and before is None:
            self.moves[id_] = {**wanted, "by": who, "state": "requested"}

    @rule(id_=ids, who=people)
    def approve(self, id_: str, who: str) -> None:
        one = self.moves.get(id_, {"state": "none"})
        waits = one["state"] == "requested" and one["by"] != who
        possible = waits and self.can_move(one["giver"], one["taker"], one["amount"])
        if (
            self.ask(ApproveTransfer(id_, caller=who), allowed=possible or one["state"] == "made")
            and possible
        ):
            self.move(one)

    @rule(id_=ids, who=people)
    def decline(self, id_: str, who: str) -> None:
        state = self.moves.get(id_, {"state": "none"})["state"]
        if self.ask(DeclineTransfer(id_, "no", caller=who), allowed=state in ("requested", "declined")):
            self.moves[id_]["state"] = "declined"

    @rule(id_=ids, name=accounts, amount=amounts, minutes=some.integers(1, 60))
    def place(self, id_: str, name: str, amount: int, minutes: int) -> None:
        deadline = self.world.now + timedelta(minutes=minutes)
        wanted = {"account": name, "amount": amount, "deadline": deadline}
        before = self.holds.get(id_)
        same = before is not None and {key: before[key] for key in wanted} == wanted
        possible = before is None and self.gives(name, amount)
        if self.ask(hold(id_, amount, name, deadline), allowed=same or possible) and possible:
            self.holds[id_] = {**wanted, "state": "open", "captured": 0}

    def state_of(self, id_: str) -> str:
        one = self.holds.get(id_)
        if one is None:
            return "none"
        return "late" if one["state"] == "open" and one["deadline"] <= self.world.now else str(one["state"])

    @rule(id_=ids)
    def firm(self, id_: str) -> None:
        if self.ask(FirmHold(id_), allowed=self.state_of(id_) in ("open", "firm")):
            self.holds[id_]["state"] = "firm"

    @rule(id_=ids)
    def release(self, id_: str) -> None:
        if self.ask(ReleaseHold(id_, "no"), self.state_of(id_) in ("open", "late", "firm", "released")):
            self.holds[id_]["state"] = "released"

    @rule(id_=ids)
    def expire(self, id_: str) -> None:
        state = self.state_of(id_)
        if self.ask(ExpireHold(id_), allowed=state not in ("none", "open")) and state == "late":
            self.holds[id_]["state"] = "released"

    @rule(id_=ids, amount=some.none() | amounts)
    def capture(self, id_: str, amount: int | None) -> None:
        state, one = self.state_of(id_), self.holds.get(id_, {"amount": 0, "captured": 0})
        taken = amount or one["amount"]
        possible = state in ("open", "firm") and taken <= one["amount"]
        again = state == "captured" and amount in (None, one["captured"])
        command = CaptureHold(id_, None if amount is None else eur(amount))
        if self.ask(command, allowed=possible or again) and possible:
            one.update(state="captured", captured=taken)
            self.pages[one["account"]].balance -= taken
            self.outside += taken

    @rule(name=accounts, both=some.booleans())
    def freeze(self, name: str, both: bool) -> None:
        if self.ask(FreezeAccount(name, "odd", both), allowed=self.pages[name].open):
            self.pages[name].frozen = "both" if both else "out"

    @rule(name=accounts)
    def unfreeze(self, name: str) -> None:
        if self.ask(UnfreezeAccount(name), allowed=self.pages[name].open):
            self.pages[name].frozen = ""

    @rule()
    def close(self) -> None:
        page = self.pages["c"]  # the others stay in use
        empty = page.balance == 0 and self.held("c") == 0
        if self.ask(CloseAccount("c"), allowed=empty or not page.open):
            page.open = False

    @rule(minutes=some.integers(1, 90) | some.just(24 * 60))
    def wait(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    @invariant()
    def every_account_is_as_the_ledger_says(self) -> None:
        for name, page in self.pages.items():
            found = account(self.world, name)
            assert (found.balance, found.held) == (eur(page.balance), eur(self.held(name)))
            assert found.available.units >= 0

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        balances = (account(self.world, name).balance.units for name in self.pages)
        assert sum(balances) + self.outside == 0

    def teardown(self) -> None:
        self.world.reloaded()
        folds.compare(self.world)


Machine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestBankingModel = Machine.TestCase
