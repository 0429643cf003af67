"""PostgreSQL's clock is three hours away for a moment. Nothing is refused, or ends early, because of it."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from diptych.banking.v1 import command_service_pb2 as commands

from devstack.stack import Stack
from tests.faults.test_money import (
    PAUSE,
    Tellers,
    assert_conserved,
    assert_one_effect_each,
    euros,
    read_events,
)
from tests.support.harness.caller import Caller
from tests.support.harness.database_clock import DatabaseClock, planted_clock
from tests.support.harness.invariants import verify_stack
from tests.support.harness.traffic import CALLERS

AWAY = (timedelta(hours=3), timedelta(hours=-3))
SET_ASIDE = "SELECT count(*) FROM events WHERE starts_with(stream, $1) AND metadata->>'time_set_aside' <> ''"


@pytest.fixture
async def clock(stack: Stack) -> AsyncIterator[DatabaseClock]:
    async with planted_clock(stack.settings.database_url) as clock:
        yield clock


@pytest.fixture
async def tellers(stack: Stack, clock: DatabaseClock) -> AsyncIterator[Tellers]:
    tellers = Tellers(stack, secrets.randbits(32))
    yield tellers
    await tellers.close()


@pytest.mark.parametrize("away", AWAY, ids=["ahead", "behind"])
async def test_a_moment_of_a_wrong_clock_leaves_no_trace_in_what_follows(
    stack: Stack, clock: DatabaseClock, tellers: Tellers, away: timedelta
) -> None:
    caller = Caller(stack, *tellers.scopes)
    await tellers.open()
    async with tellers.flowing(PAUSE):
        await tellers.more(40)
        await clock.shift(away)
        await tellers.more(60)
        await clock.shift(timedelta(0))
        await tellers.more(CALLERS)  # the commands in flight may still have been decided at the wrong time
        refused = count_refused(tellers)
        await tellers.more(40)
        for account_id in tellers.accounts:
            await place_short_hold(caller, account_id)
    await caller.close()
    assert count_refused(tellers) == refused
    rows = await read_events(stack, tellers.bank)
    assert_conserved(rows)
    await assert_one_effect_each(stack, tellers.answers)
    assert await count_set_aside(stack, tellers.bank)
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


def count_refused(tellers: Tellers) -> int:
    return list(tellers.answers.rejected.values()).count("HOLD_DEADLINE_INVALID")


async def place_short_hold(caller: Caller, account_id: str) -> None:
    """Hold a cent for 15 minutes; it is not to expire now."""
    await caller.execute(
        commands.DepositRequest(account_id=account_id, amount=euros(100_000), reference="in")
    )
    placing = commands.PlaceHoldRequest(
        hold_id=f"short-{secrets.token_hex(8)}", account_id=account_id, amount=euros(1), reference="held"
    )
    placing.deadline.FromDatetime(datetime.now(UTC) + timedelta(minutes=15))
    receipt = await caller.execute(placing)
    assert abs(receipt.record_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (
        await caller.rejection_reason(commands.ExpireHoldRequest(hold_id=placing.hold_id))
        == "HOLD_NOT_EXPIRED"
    )


async def count_set_aside(stack: Stack, bank: str) -> int:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return int(await connection.fetchval(SET_ASIDE, f"banking.account.{bank}"))
    finally:
        await connection.close()
