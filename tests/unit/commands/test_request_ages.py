"""Request ids that carry their time: too old or too far ahead is refused, and nothing else."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import diptych_client
import pytest

from command_server.kernel.outcomes import Accepted
from command_server.kernel.request_ages import MAX_AHEAD, RequestAges, RequestTooNew, RequestTooOld
from tests.support.builders.request_ids import request_id_of
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules.messages import Deposit

NOW = datetime(2026, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC)
DAYS = timedelta(days=30)
AGES = RequestAges(DAYS)
MOMENT = timedelta(milliseconds=1)


async def execute(
    store: MemoryEventStore, request_id: str, now: datetime, keep: timedelta | None = DAYS
) -> Any:
    store.clock = lambda: now
    commits = group_commit(store, keep_requests=keep)
    writer = asyncio.create_task(commits.run())
    try:
        return await commits.execute(request(Deposit("a", 1), request_id=request_id))
    finally:
        commits.close()
        await writer


def test_an_id_of_the_retentions_age_is_executed() -> None:
    AGES.check(request_id_of(NOW - DAYS), NOW)


def test_an_older_id_is_refused_with_the_time_that_is_kept() -> None:
    with pytest.raises(RequestTooOld) as caught:
        AGES.check(request_id_of(NOW - DAYS - MOMENT), NOW)
    assert caught.value.kept_since == NOW - DAYS


def test_an_id_up_to_a_day_ahead_is_executed() -> None:
    AGES.check(request_id_of(NOW + MAX_AHEAD), NOW)
    with pytest.raises(RequestTooNew):
        AGES.check(request_id_of(NOW + MAX_AHEAD + MOMENT), NOW)


def test_an_id_from_before_removed_records_is_refused_without_a_retention() -> None:
    ages = RequestAges(None, removed_to=NOW - timedelta(days=3))
    ages.check(request_id_of(NOW - timedelta(days=3)), NOW)
    with pytest.raises(RequestTooOld):
        ages.check(request_id_of(NOW - timedelta(days=3) - MOMENT), NOW)


@pytest.mark.parametrize(
    "request_id",
    [
        "6f2c1b1e-8c55-4f0b-9d0e-0d2f6e0c3b71",
        "2a9c1f0e-7c58-5d0b-8a55-0d2f6e0c3b71",
        str(UUID(int=0)),
        str(UUID(int=2**128 - 1)),
        "00000000-0000-7000-c000-000000000000",  # no variant of RFC 9562, so no version either
    ],
)
def test_an_id_without_a_time_is_always_executed(request_id: str) -> None:
    AGES.check(request_id, NOW)


def test_the_clients_ids_carry_their_time() -> None:
    before = datetime.now(UTC) - MOMENT
    request_id = diptych_client.new_request_id()
    assert (UUID(request_id).version, UUID(request_id).variant) == (7, "specified in RFC 4122")
    with pytest.raises(RequestTooOld):
        AGES.check(request_id, before + DAYS + timedelta(seconds=5))
    AGES.check(request_id, before + DAYS)
    assert len({diptych_client.new_request_id() for _ in range(1_000)}) == 1_000


async def test_an_id_on_record_is_answered_at_any_age() -> None:
    store, request_id = MemoryEventStore(), request_id_of(NOW)
    first = await execute(store, request_id, NOW)
    assert (await execute(store, request_id, NOW + 10 * DAYS)).outcome == first.outcome
    assert len(store.events) == 1


async def test_an_old_id_without_a_record_changes_nothing() -> None:
    store = MemoryEventStore()
    with pytest.raises(RequestTooOld):
        await execute(store, request_id_of(NOW - DAYS - MOMENT), NOW)
    with pytest.raises(RequestTooNew):
        await execute(store, request_id_of(NOW + 2 * MAX_AHEAD), NOW)
    assert (store.events, store.requests) == ([], {})


async def test_a_command_beside_a_refused_one_is_executed() -> None:
    commits = group_commit(MemoryEventStore(lambda: NOW), keep_requests=DAYS)
    pending = asyncio.gather(
        *(
            commits.execute(request(Deposit("a", 1), request_id=request_id_of(time)))
            for time in (NOW - 2 * DAYS, NOW)
        ),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    refused, accepted = await pending
    assert isinstance(refused, RequestTooOld)
    assert not isinstance(accepted, BaseException)
    assert isinstance(accepted.outcome, Accepted)
