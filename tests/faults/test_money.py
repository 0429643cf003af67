"""While command servers are killed, the sum of all balances and of the money outside stays zero."""

import asyncio
import json
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from diptych.banking.v1 import command_service_pb2 as commands
from diptych.banking.v1 import events_pb2 as happened
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub
from google.type.money_pb2 import Money

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.invariants import verify_stack
from tests.support.harness.traffic import Answers, Traffic

ACCOUNTS, PAUSE = 5, 0.05
LIMITS = (0, 0, 0, 40, 90)
"""Overdraft limit of each account, in whole euros."""
CENT = 10_000_000


def euros(cents: int) -> Money:
    return Money(currency_code="EUR", units=cents // 100, nanos=cents % 100 * CENT)


def cents(money: Any) -> int:
    return int(money.units * 100 + money.nanos // CENT)


class Tellers(Traffic):
    """Callers that deposit, withdraw, transfer and hold money of a few accounts."""

    stub = CommandServiceStub
    scopes = tuple(f"banking.{duty}" for duty in ("open", "overdraft", "deposit", "pay", "refund", "hold"))

    def __init__(self, stack: Stack, seed: int) -> None:
        super().__init__(stack, seed)
        self.bank = f"{seed:08x}"
        self.accounts = [f"{self.bank}-{number}" for number in range(ACCOUNTS)]
        self._holds: dict[str, int] = {}
        """Hold id -> cents."""

    async def open(self) -> None:
        choose = random.Random(self.bank)
        for account_id, limit in zip(self.accounts, LIMITS, strict=True):
            opening = commands.OpenAccountRequest(
                account_id=account_id, owner_id="ada", currency_code="EUR", overdraft_limit=euros(limit * 100)
            )
            await self._execute("OpenAccount", opening, choose)
            deposit = commands.DepositRequest(account_id=account_id, amount=euros(10_050), reference="pay")
            await self._execute("Deposit", deposit, choose)

    async def run_caller(self, number: int, seed: float, pause: float) -> None:
        choose = random.Random(seed)
        while not self.stopped:
            await asyncio.sleep(pause)
            method, request = self._choose_command(choose)
            await self._execute(method, request, choose)

    def _choose_command(self, choose: random.Random) -> tuple[str, Any]:
        amount, (one, other) = choose.randint(1, 6_000), choose.sample(self.accounts, 2)
        kind = choice if (choice := choose.choice("ddwtttthhfcr")) in "dwth" or self._holds else "h"
        if kind == "d":
            return "Deposit", commands.DepositRequest(account_id=one, amount=euros(amount), reference="in")
        if kind == "w":
            return "Withdraw", commands.WithdrawRequest(account_id=one, amount=euros(amount), reference="out")
        if kind == "t":
            return "Transfer", commands.TransferRequest(
                from_account_id=one, to_account_id=other, amount=euros(amount), reference="over"
            )
        if kind == "h":
            hold_id = f"{self.bank}-{choose.getrandbits(64):x}"
            placing = commands.PlaceHoldRequest(
                hold_id=hold_id, account_id=one, amount=euros(amount), reference="held", customer_id="ada"
            )
            placing.deadline.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
            return "PlaceHold", placing
        hold_id, held = choose.choice(list(self._holds.items()))
        if kind == "f":
            return "FirmHold", commands.FirmHoldRequest(hold_id=hold_id)
        if kind == "c":
            part = euros(choose.randint(1, held))
            return "CaptureHold", commands.CaptureHoldRequest(hold_id=hold_id, amount=part)
        return "ReleaseHold", commands.ReleaseHoldRequest(hold_id=hold_id, reason="over")

    async def _execute(self, method: str, request: Any, choose: random.Random) -> None:
        request.request_id = str(UUID(int=choose.getrandbits(128), version=4))
        if await self.send(method, request, choose) and method == "PlaceHold":
            self._holds[request.hold_id] = cents(request.amount)


@pytest.fixture
async def tellers(stack: Stack) -> AsyncIterator[Tellers]:
    tellers = Tellers(stack, secrets.randbits(32))
    yield tellers
    await tellers.close()


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.long)])
async def test_no_money_is_made_or_lost_while_command_servers_are_killed(
    stack: Stack, tellers: Tellers, kills: int
) -> None:
    choose = random.Random(tellers.bank)
    await tellers.open()
    async with tellers.flowing(PAUSE):
        await tellers.more(60)
        for _ in range(kills):
            await tellers.more(60)
            victim = choose.choice(stack.of(COMMAND_SERVER))
            await asyncio.sleep(choose.uniform(0.0, 0.2))  # the moment of the kill, not a wait for anything
            await victim.kill()
            await victim.start()
    assert tellers.answers.repeated
    rows = await read_events(stack, tellers.bank)
    assert_conserved(rows)
    await assert_one_effect_each(stack, tellers.answers)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def read_events(stack: Stack, bank: str) -> list[Any]:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return list(
            await connection.fetch(
                "SELECT stream, version, type, data FROM events "
                "WHERE starts_with(stream, $1) ORDER BY stream, version",
                f"banking.account.{bank}",
            )
        )
    finally:
        await connection.close()


def assert_conserved(rows: Sequence[Any]) -> None:
    """Assert that all balances and the money outside sum to zero, and that no account exceeds its limit."""
    balance: Counter[str] = Counter()
    held: Counter[str] = Counter()
    moved: dict[str, list[int]] = defaultdict(list)
    outside = 0
    for row in rows:
        stream, message = (
            row["stream"],
            getattr(happened, row["type"].rpartition(".")[2]).FromString(row["data"]),
        )
        limit = LIMITS[int(stream.rpartition("-")[2])] * 100
        amount = cents(message.amount) if "amount" in message.DESCRIPTOR.fields_by_name else 0
        match message:
            case happened.MoneyDeposited():
                balance[stream] += amount
                outside -= amount
            case happened.MoneyWithdrawn():
                balance[stream] -= amount
                outside += amount
            case happened.TransferSent() | happened.TransferReceived():
                sign = -1 if isinstance(message, happened.TransferSent) else 1
                balance[stream] += sign * amount
                moved[message.transfer_id].append(sign * amount)
            case happened.MoneyHeld():
                held[stream] += amount
            case happened.HeldMoneyReleased():
                held[stream] -= amount
            case happened.HeldMoneyCaptured():
                balance[stream] -= amount
                held[stream] -= amount + cents(message.released)
                outside += amount
        assert held[stream] >= 0
        assert balance[stream] - held[stream] >= -limit, row
    assert sum(balance.values()) + outside == 0
    assert all(len(each) == 2 and sum(each) == 0 for each in moved.values()), moved
    assert moved, "money was transferred"


async def assert_one_effect_each(stack: Stack, answers: Answers) -> None:
    """Assert that each accepted command has its effect once, and that a rejected one has none."""
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        records = await connection.fetch(
            "SELECT r.request_id, r.outcome, r.receipt::text, e.effects FROM requests r LEFT JOIN LATERAL ("
            "  SELECT json_agg(json_build_array(stream, version)) AS effects FROM event_log"
            "  WHERE request_id = r.request_id::text) e ON true WHERE r.request_id = ANY ($1)",
            [UUID(id_) for id_ in (*answers.accepted, *answers.rejected)],
        )
    finally:
        await connection.close()
    rows = {str(row["request_id"]): row for row in records}
    assert len(rows) == len(records) == len(answers.accepted) + len(answers.rejected)
    for request_id, (method, _) in answers.accepted.items():
        effects = json.loads(rows[request_id]["effects"] or "[]")
        receipt = json.loads(rows[request_id]["receipt"])
        assert rows[request_id]["outcome"] == "ACCEPTED"
        assert all([stream, version] in effects for stream, version in receipt.items() if effects)
        assert len(effects) in EVENTS[method], (method, effects)
    for request_id, reason in answers.rejected.items():
        assert (rows[request_id]["outcome"], rows[request_id]["effects"]) == (reason, None)


EVENTS = {
    "OpenAccount": {1},
    "Deposit": {1},
    "Withdraw": {2},
    "Transfer": {4},
    "PlaceHold": {2},
    "FirmHold": {0, 1},
    "CaptureHold": {0, 2},
    "ReleaseHold": {0, 2},
}
"""Numbers of events that an accepted command may append; 0 where the hold is already in that state."""
