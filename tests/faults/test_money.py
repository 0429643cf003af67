"""While command servers are killed, all balances and what is outside go on to come to zero."""

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
from tests.support.harness.invariants import verified
from tests.support.harness.traffic import Answers, Traffic

ACCOUNTS, PAUSE = 5, 0.05
LIMITS = (0, 0, 0, 40, 90)
"""How far each account may fall below zero, in whole euros."""
CENT = 10_000_000


def euros(cents: int) -> Money:
    return Money(currency_code="EUR", units=cents // 100, nanos=cents % 100 * CENT)


def cents(money: Any) -> int:
    return int(money.units * 100 + money.nanos // CENT)


class Tellers(Traffic):
    """Move money between a few accounts, in and out, and hold some of it."""

    stub = CommandServiceStub
    scopes = ("banking.write", "banking.hold")

    def __init__(self, stack: Stack, seed: int) -> None:
        super().__init__(stack, seed)
        self.bank = f"{seed:08x}"
        self.accounts = [f"{self.bank}-{number}" for number in range(ACCOUNTS)]
        self._holds: dict[str, int] = {}
        """How many cents, of every hold that there is."""

    async def open(self) -> None:
        choose = random.Random(self.bank)
        for account_id, limit in zip(self.accounts, LIMITS, strict=True):
            opening = commands.OpenAccountRequest(
                account_id=account_id, owner_id="ada", currency_code="EUR", overdraft_limit=euros(limit * 100)
            )
            await self._do("OpenAccount", opening, choose)
            deposit = commands.DepositRequest(account_id=account_id, amount=euros(10_050), reference="pay")
            await self._do("Deposit", deposit, choose)

    async def call_on(self, number: int, seed: float, pause: float) -> None:
        choose = random.Random(seed)
        while not self.stopped:
            await asyncio.sleep(pause)
            method, request = self._any(choose)
            await self._do(method, request, choose)

    def _any(self, choose: random.Random) -> tuple[str, Any]:
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
                hold_id=hold_id, account_id=one, amount=euros(amount), reference="held"
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

    async def _do(self, method: str, request: Any, choose: random.Random) -> None:
        request.request_id = str(UUID(int=choose.getrandbits(128), version=4))
        if await self.send(method, request, choose) and method == "PlaceHold":
            self._holds[request.hold_id] = cents(request.amount)


@pytest.fixture
async def tellers(stack: Stack) -> AsyncIterator[Tellers]:
    tellers = Tellers(stack, secrets.randbits(32))
    yield tellers
    await tellers.close()


async def test_no_money_is_made_or_lost_while_command_servers_are_killed(
    stack: Stack, tellers: Tellers
) -> None:
    choose = random.Random(tellers.bank)
    await tellers.open()
    async with tellers.flowing(PAUSE):
        for _ in range(3):
            await tellers.more(60)
            victim = choose.choice(stack.of(COMMAND_SERVER))
            await asyncio.sleep(choose.uniform(0.0, 0.2))  # the moment of the kill, not a wait for anything
            await victim.kill()
            await victim.start()
    assert tellers.answers.repeated
    rows = await events_of(stack, tellers.bank)
    conserved(rows)
    await each_took_effect_once(stack, tellers.answers)
    report = await verified(stack)
    assert report.clean, report.to_text()


async def events_of(stack: Stack, bank: str) -> list[Any]:
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


def conserved(rows: Sequence[Any]) -> None:
    """Assert that what accounts have and what is outside come to zero, and that no account gave too much."""
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


async def each_took_effect_once(stack: Stack, answers: Answers) -> None:
    """Assert that what was acknowledged is there exactly once, and what was refused is not."""
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        found = await connection.fetch(
            "SELECT r.request_id, r.outcome, r.receipt::text, e.effects FROM requests r LEFT JOIN LATERAL ("
            "  SELECT json_agg(json_build_array(stream, version)) AS effects FROM event_log"
            "  WHERE request_id = r.request_id::text) e ON true WHERE r.request_id = ANY ($1)",
            [UUID(id_) for id_ in (*answers.accepted, *answers.refused)],
        )
    finally:
        await connection.close()
    rows = {str(row["request_id"]): row for row in found}
    assert len(rows) == len(found) == len(answers.accepted) + len(answers.refused)
    for request_id, (method, _) in answers.accepted.items():
        effects = json.loads(rows[request_id]["effects"] or "[]")
        told = json.loads(rows[request_id]["receipt"])
        assert rows[request_id]["outcome"] == "ACCEPTED"
        assert all([stream, version] in effects for stream, version in told.items() if effects)
        assert len(effects) in EVENTS[method], (method, effects)
    for request_id, reason in answers.refused.items():
        assert (rows[request_id]["outcome"], rows[request_id]["effects"]) == (reason, None)


EVENTS = {
    "OpenAccount": {1},
    "Deposit": {1},
    "Withdraw": {1},
    "Transfer": {3},
    "PlaceHold": {2},
    "FirmHold": {0, 1},
    "CaptureHold": {0, 2},
    "ReleaseHold": {0, 2},
}
"""How many events a command makes that is accepted: none where a hold is as it asks for already."""
