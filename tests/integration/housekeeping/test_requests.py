"""Answers to repeated requests are removed after their retention, and no repetition has a second effect."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from command_server.kernel.request_ages import MAX_AHEAD, RequestTooOld
from command_server.postgres.event_store import PostgresEventStore
from operations.housekeeping import requests
from runtime import leader_lease
from runtime.process.start_error import StartError
from tests.integration.housekeeping.conftest import House
from tests.support.builders.request_ids import request_id_of
from tests.support.builders.requests import group_commit, request
from tests.support.harness.changed_record import ALLOW_CHANGES
from tests.support.harness.waiting import until
from tests.support.ledger.rules.messages import Deposit

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
KEPT = timedelta(days=30)
REMOVED = KEPT + MAX_AHEAD
"""The age at which an answer is removed."""

INSERT_STEP = """
INSERT INTO saga_steps (saga, id, step, attempt, partition, number, method, request, request_id, decided_at,
  due_at, tries, outcome)
VALUES ('s', $1::text, 'pay', 1, 0, 1, '/a.CommandService/B', '', $1::uuid, now(), now(), 0, $2)
"""


async def execute(house: House, request_id: str, **options: Any) -> Any:
    store = PostgresEventStore(house.database_url)
    commits = group_commit(store, **options)
    writer = asyncio.create_task(commits.run())
    try:
        return await commits.execute(request(Deposit("a", 1), request_id=request_id))
    finally:
        commits.close()
        await writer
        await store.close()


async def test_answers_older_than_the_retention_are_removed_and_counted(house: House) -> None:
    old = [await house.record_request(REMOVED + MINUTE) for _ in range(3)]
    kept = await house.record_request(REMOVED - MINUTE)
    assert await house.keep(dry_run=True) == 0
    assert house.line_of("requests").startswith("requests        3 answers to remove, kept since ")
    assert await house.count("requests") == 4
    assert await house.keep() == 0
    assert house.line_of("requests").startswith("requests        3 answers removed, kept since ")
    assert await house.fetch("SELECT request_id::text FROM requests") == [(kept,)]
    for request_id in old:
        with pytest.raises(RequestTooOld):
            await execute(house, request_id)
    assert await house.count("events") == 0


async def test_a_server_with_another_retention_refuses_what_was_removed(house: House) -> None:
    removed = await house.record_request(timedelta(days=4))
    await house.keep(keep_requests="2d")
    with pytest.raises(RequestTooOld):
        await execute(house, removed, keep_requests=KEPT)
    with pytest.raises(RequestTooOld):
        await execute(house, removed, keep_requests=None)


@pytest.mark.parametrize("ahead", [timedelta(0), MINUTE, MAX_AHEAD - MINUTE, MAX_AHEAD])
async def test_an_id_ahead_of_the_clock_is_refused_once_its_answer_is_gone(
    house: House, ahead: timedelta
) -> None:
    """At every age of the answer, a repetition is either on record or refused."""
    ages = [KEPT, REMOVED - MINUTE, REMOVED + MINUTE, REMOVED + ahead]
    ids = [await house.record_request(age, age - ahead) for age in ages]
    await house.keep()
    kept = {id_ for (id_,) in await house.fetch("SELECT request_id::text FROM requests")}
    assert ids[0] in kept
    assert ids[2] not in kept
    for request_id in set(ids) - kept:
        with pytest.raises(RequestTooOld):
            await execute(house, request_id, keep_requests=KEPT)
    assert await house.count("events") == 0


async def test_the_time_to_which_answers_go_is_recorded_before_the_first_goes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = await house.record_request(REMOVED + MINUTE)
    monkeypatch.setattr(requests, "DELETE", "SELECT 1 / 0")
    assert await house.keep() == 1
    assert "division by zero" in house.line_of("requests")
    assert await house.count("requests") == 1
    await house.connection.execute(ALLOW_CHANGES)
    await house.connection.execute("DELETE FROM requests")  # as if it had been killed after its batch
    with pytest.raises(RequestTooOld):
        await execute(house, removed)


async def test_the_answer_to_a_step_without_an_outcome_is_kept(house: House) -> None:
    pending, answered = [await house.record_request(2 * KEPT) for _ in range(2)]
    for request_id, outcome in ((pending, None), (answered, "OK")):
        await house.connection.execute(INSERT_STEP, request_id, outcome)
    await house.keep()
    assert await house.fetch("SELECT request_id::text FROM requests") == [(pending,)]


async def test_many_batches(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BATCH", 10)
    await house.record_requests(40, REMOVED + MINUTE)
    await house.record_requests(5, DAY)
    await house.keep()
    assert "40 answers removed" in house.line_of("requests")
    assert await house.count("requests") == 5


async def test_a_round_stops_when_another_process_takes_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over = "UPDATE housekeeping SET leader = 'other', lease_until = now() + interval '5 seconds'"
    monkeypatch.setattr(leader_lease, "RENEWAL_INTERVAL", 0.05)
    monkeypatch.setattr(requests, "DELETE", "SELECT 0 FROM pg_sleep(10)")
    round_ = asyncio.create_task(house.keep())
    await until(lambda: has_leader(house))
    await house.connection.execute(take_over)
    with pytest.raises(StartError, match="the lease is lost: another process holds the lease"):
        await round_


async def has_leader(house: House) -> bool:
    return bool(await house.fetch("SELECT 1 FROM housekeeping WHERE leader IS NOT NULL"))


async def test_without_a_limit_nothing_is_removed(house: House) -> None:
    await house.record_request(timedelta(days=4_000))
    await house.keep(keep_requests="unlimited")
    assert house.line_of("requests") == "requests        0 answers removed, everything is kept"
    assert await house.count("requests") == 1
    await execute(house, request_id_of(datetime(2001, 1, 1, tzinfo=UTC)))
