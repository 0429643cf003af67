"""After one moment of a clock three hours away, the rules of all contexts decide as if it had never been."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from command_server.contexts import banking, inventory, ordering
from command_server.contexts.banking.domain.messages import ExpireHold, FirmHold, OpenAccount
from command_server.contexts.inventory.domain.messages import (
    AdjustStock,
    CompleteTransfer,
    ExpireReservation,
    FirmReservation,
    RegisterProduct,
    TransferStock,
)
from command_server.contexts.ordering.domain.messages import CancelOrder, ConfirmOrder
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted, Outcome, Rejection
from tests.support.builders.bank import deposit, hold, transfer, withdraw
from tests.support.builders.orders import PLACE
from tests.support.builders.requests import request
from tests.support.builders.warehouse import ELSEWHERE, SKU, WAREHOUSE, receive, reserve
from tests.support.harness.memory_event_store import MemoryEventStore

CONTEXTS = (banking.CONTEXT, inventory.CONTEXT, ordering.CONTEXT)
KINDS = {
    name.rpartition(".")[2]: kind for context in CONTEXTS for name, kind in command_types(context).items()
}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(minutes=15)
AWAY = (timedelta(hours=3), timedelta(hours=-3))
ACCOUNTS = [OpenAccount(id_, "ada", "EUR", None, None) for id_ in "ab"]
BEFORE = [
    *(RegisterProduct(SKU, "Green tea", 0), receive(10), reserve("r-open", 1, deadline=SOON)),
    *(*ACCOUNTS, deposit("a", 100), hold("h-open", 1, deadline=SOON)),
    replace(PLACE, order_id="o-open"),
]
MEANWHILE = [
    *(AdjustStock(SKU, WAREHOUSE, 9, "counted"), TransferStock("t-open", SKU, WAREHOUSE, ELSEWHERE, 1)),
    *(withdraw("a", 1), transfer("t-1", 1), ConfirmOrder("o-open")),
]
AFTER = [
    *(reserve("r-1", 1, deadline=SOON), FirmReservation("r-open"), CompleteTransfer("t-open")),
    *(hold("h-1", 1, deadline=SOON), FirmHold("h-open"), transfer("t-2", 1), withdraw("b", 1)),
    *(CancelOrder("o-open", "changed my mind"), replace(PLACE, order_id="o-1")),
]
TOO_EARLY = [ExpireReservation("r-1"), ExpireHold("h-1")]


class Shop:
    """All contexts on a store whose clock the test sets."""

    def __init__(self) -> None:
        self.now = NOON
        self.store = MemoryEventStore(lambda: self.now)
        self.commits = GroupCommit(self.store, aggregate_types(CONTEXTS))

    async def execute(self, commands: Sequence[Any]) -> list[Outcome]:
        """Execute each command in a batch of its own."""
        writer = asyncio.create_task(self.commits.run())
        outcomes = [
            (await self.commits.execute(request(command, kind=KINDS[type(command).__name__]))).outcome
            for command in commands
        ]
        writer.cancel()
        return outcomes


@pytest.mark.parametrize("away", AWAY, ids=["ahead", "behind"])
async def test_one_moment_of_a_wrong_clock_refuses_and_ends_nothing(away: timedelta) -> None:
    shop = Shop()
    await shop.execute(BEFORE)
    shop.now = NOON + away
    assert all(isinstance(outcome, Accepted) for outcome in await shop.execute(MEANWHILE))
    shop.now = NOON + timedelta(seconds=1)
    outcomes = await shop.execute(AFTER)
    assert [outcome for outcome in outcomes if isinstance(outcome, Rejection)] == []
    refused = [outcome.reason for outcome in await shop.execute(TOO_EARLY) if isinstance(outcome, Rejection)]
    assert refused == ["RESERVATION_NOT_EXPIRED", "HOLD_NOT_EXPIRED"]


@pytest.mark.parametrize("away", AWAY, ids=["ahead", "behind"])
async def test_a_wrong_time_stays_with_the_events_that_it_recorded(away: timedelta) -> None:
    shop = Shop()
    await shop.execute(BEFORE)
    shop.now = NOON + away
    await shop.execute(MEANWHILE)
    wrong = len(shop.store.events)
    shop.now = NOON + timedelta(seconds=1)
    await shop.execute([*AFTER, *AFTER])
    times = {row.recorded_at for row in shop.store.events[wrong:]}
    assert max(times) - NOON < timedelta(seconds=5)
    assert min(times) >= NOON
