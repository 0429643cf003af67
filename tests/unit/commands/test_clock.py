"""Time within a stream: it never runs backwards, unless a wrong clock recorded the stream's last event."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from command_server.kernel.clock import MAX_LEAD
from command_server.kernel.ports import EventRow
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules.messages import Deposit, Transfer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURS, TICK = timedelta(hours=3), timedelta(seconds=1)
"""TICK is longer than the batches of a test take."""


class Ledger:
    """The ledger on a store whose clock the test sets."""

    def __init__(self) -> None:
        self.now = NOON
        self.store = MemoryEventStore(lambda: self.now)
        self.reported: list[Mapping[str, timedelta]] = []

    async def execute(self, *commands: Any) -> Sequence[EventRow]:
        """Execute the commands in one batch; return the new events."""
        count = len(self.store.events)
        commits = group_commit(self.store, on_time_set_aside=self.reported.append)
        pending = asyncio.gather(*(commits.execute(request(command)) for command in commands))
        await asyncio.sleep(0)
        commits.close()
        await commits.run()
        await pending
        return self.store.events[count:]


def set_aside(row: EventRow) -> str | None:
    time: str | None = json.loads(row.metadata).get("time_set_aside")
    return time


async def test_a_decision_is_made_at_the_stores_time() -> None:
    ledger = Ledger()
    (row,) = await ledger.execute(Deposit("a", 1))
    assert NOON <= row.recorded_at < NOON + TICK
    assert ledger.store.streams["ledger.account.a"].updated_at == row.recorded_at


async def test_time_does_not_run_backwards_by_up_to_a_second() -> None:
    ledger = Ledger()
    (first,) = await ledger.execute(Deposit("a", 1))
    ledger.now = first.recorded_at - MAX_LEAD
    second, third = (await ledger.execute(Deposit("a", 1), Transfer("a", "b", 1)))[:2]
    assert second.recorded_at == third.recorded_at == first.recorded_at
    assert (set_aside(second), ledger.reported) == (None, [])


async def test_a_time_further_ahead_is_set_aside_and_recorded_once() -> None:
    ledger = Ledger()
    ledger.now = NOON + HOURS
    (wrong,) = await ledger.execute(Deposit("a", 1))
    ledger.now = NOON
    first, second = await ledger.execute(Deposit("a", 1), Deposit("a", 1))
    assert NOON <= first.recorded_at <= second.recorded_at < NOON + TICK
    assert (set_aside(first), set_aside(second)) == (wrong.recorded_at.isoformat(), None)
    (reported,) = ledger.reported
    assert list(reported) == ["ledger.account.a"]
    assert reported["ledger.account.a"] == wrong.recorded_at - first.recorded_at
    (third,) = await ledger.execute(Deposit("a", 1))
    assert (set_aside(third), len(ledger.reported)) == (None, 1)


async def test_a_time_that_is_set_aside_does_not_reach_other_streams() -> None:
    ledger = Ledger()
    ledger.now = NOON + HOURS
    (wrong,) = await ledger.execute(Deposit("a", 5))
    ledger.now = NOON
    rows = {row.stream: row for row in await ledger.execute(Transfer("a", "b", 1))}
    assert {row.recorded_at < NOON + TICK for row in rows.values()} == {True}
    assert set_aside(rows["ledger.account.a"]) == wrong.recorded_at.isoformat()
    assert set_aside(rows["ledger.account.b"]) is None


async def test_a_refused_command_leaves_the_time_of_a_stream_as_it_is() -> None:
    ledger = Ledger()
    ledger.now = NOON + HOURS
    (wrong,) = await ledger.execute(Deposit("a", 1))
    ledger.now = NOON
    assert await ledger.execute(Transfer("a", "b", 999)) == []
    assert ledger.store.streams["ledger.account.a"].updated_at == wrong.recorded_at
    assert ledger.reported == []
