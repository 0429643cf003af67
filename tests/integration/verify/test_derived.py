"""Faults planted in indexes, counters, histories and change feeds are found and named."""

from typing import Any

import pytest

from tests.support.harness.redis_faults import key, read_member
from tests.support.harness.verified_system import CHEQUE, HISTORY, System
from tests.support.ledger.stubs import types


@pytest.mark.parametrize(
    "index", ["all", "account/a-1", "state/STATE_VOIDED", "account_state/a-1/STATE_VOIDED"]
)
async def test_an_index_that_lacks_a_member(system: System, index: str) -> None:
    missing = await read_member(system, "c-2")
    await system.redis.zrem(key("index", index), missing)
    assert await system.find_problems() == [f"{key('index', index)}: {missing} is missing"]


async def test_an_index_with_another_score(system: System) -> None:
    moved = await read_member(system, "c-2")
    await system.redis.zadd(key("index", "all"), {moved: 1})
    assert await system.find_problems() == [f"{key('index', 'all')}: {moved} has score 1.0, expected 0"]


async def test_an_index_with_an_unexpected_member(system: System) -> None:
    other = await read_member(system, "c-2")
    await system.redis.zadd(key("index", "state/STATE_CASHED"), {other: 0, "0000:c-9": 0})
    assert sorted(await system.find_problems()) == [
        f"{key('index', 'state/STATE_CASHED')}: unexpected member 0000:c-9",
        f"{key('index', 'state/STATE_CASHED')}: unexpected member {other}",
    ]


async def test_an_unexpected_index(system: System) -> None:
    await system.redis.zadd(key("index", "account/a-9"), {"0000:c-9": 0})
    assert await system.find_problems() == [f"{key('index', 'account/a-9')}: unexpected member 0000:c-9"]


async def test_an_index_that_is_not_a_sorted_set(system: System) -> None:
    await system.redis.set(key("index", "account/a-9"), "x")
    (problem,) = await system.find_problems()
    assert problem.startswith(f"{key('index', 'account/a-9')}: not a sorted set")


async def test_a_counter_that_is_wrong(system: System) -> None:
    await system.redis.hincrby(key("counters", "account/a-1"), "cheques/STATE_VOIDED", 1)
    assert await system.find_problems() == [
        f"{key('counters', 'account/a-1')}: cheques/STATE_VOIDED is 2, the views contribute 1"
    ]


async def test_an_unexpected_counter_and_unexpected_counters(system: System) -> None:
    await system.redis.hset(key("counters", "account/a-1"), "cheques/STATE_ENDORSED", "0")
    await system.redis.hset(key("counters", "account/a-9"), "cheques/STATE_ENDORSED", "1")
    assert sorted(await system.find_problems()) == [
        f"{key('counters', 'account/a-1')}: cheques/STATE_ENDORSED is 0, the views contribute 0",
        f"{key('counters', 'account/a-9')}: cheques/STATE_ENDORSED is 1, the views contribute 0",
    ]


async def test_missing_counters(system: System) -> None:
    await system.redis.delete(key("counters", "account/a-2"))
    problems = await system.find_problems()
    assert f"{key('counters', 'account/a-2')}: cheques/STATE_WRITTEN is 0, the views contribute 2" in problems
    assert len(problems) == 2


async def test_an_event_counter_that_is_wrong(system: System) -> None:
    (counters,) = [each async for each in system.redis.scan_iter(match="event_counters:*")]
    await system.redis.hincrby(counters, "count/KIND_PAID", 1)
    assert await system.find_problems() == [
        f"{counters.decode()}: count/KIND_PAID is 4, the events contribute 3"
    ]


async def test_a_view_that_records_other_counted_contributions(system: System) -> None:
    await system.redis.hset(CHEQUE.key("c-2"), "counted", "[]")
    problems = await system.find_problems()
    assert "view ledger.cheque c-2: field counted differs from the fold: [] (version 3)" in problems
    assert f"{key('counters', 'account/a-1')}: cheques/STATE_VOIDED is 1, the views contribute 0" in problems


async def test_a_history_that_lacks_an_entry(system: System) -> None:
    await system.redis.hdel(HISTORY.history("c-2"), "2")
    assert await system.find_problems() == ["history ledger.cheque_history c-2: entry 2 is missing"]


async def test_a_history_entry_with_another_field(system: System) -> None:
    stored: Any = await system.redis.hget(HISTORY.history("c-2"), "2")
    entry = types.ChequeHistoryEntry.FromString(stored)
    entry.actor = "mallory"
    await system.redis.hset(HISTORY.history("c-2"), "2", entry.SerializeToString())
    assert await system.find_problems() == [
        "history ledger.cheque_history c-2: entry 2: actor is mallory, expected alice"
    ]


async def test_an_unexpected_history_entry(system: System) -> None:
    await system.redis.hset(HISTORY.history("c-2"), "4", b"")
    await system.redis.hset(HISTORY.history("c-9"), "1", b"")
    assert await system.find_problems() == [
        "history ledger.cheque_history c-2: entry 4 has no event",
        "history ledger.cheque_history c-9: no such aggregate",
    ]


async def test_a_change_feed_that_lacks_a_view(system: System) -> None:
    await system.redis.zrem(key("change_feed", "account/a-1"), "c-2")
    assert await system.find_problems() == [f"{key('change_feed', 'account/a-1')}: c-2 is missing"]


async def test_a_change_feed_with_an_unexpected_view(system: System) -> None:
    await system.redis.zadd(key("change_feed", "account/a-1"), {"c-5": 99})
    assert await system.find_problems() == [f"{key('change_feed', 'account/a-1')}: unexpected member c-5"]


@pytest.mark.parametrize("kind", ["view", "history", "counters"])
async def test_a_key_of_another_type_is_named_and_all_others_are_compared(system: System, kind: str) -> None:
    names = {
        "view": CHEQUE.key("c-1"),
        "history": HISTORY.history("c-1"),
        "counters": key("counters", "account/a-1"),
    }
    await system.redis.delete(names[kind])
    await system.redis.rpush(names[kind], "x")
    report = await system.verify()
    found = {problem.subject for problem in report.problems if problem.text.startswith("not a hash: WRONG")}
    assert found == {names[kind]}
    assert report.counts["views"] >= 11


async def test_an_index_of_contributors_of_another_type_ends_no_check(system: System) -> None:
    for name in (key("index", "account/a-1"), CHEQUE.key("c-2")):
        await system.redis.delete(name)
        await system.redis.rpush(name, "x")
    await system.redis.hincrby(key("counters", "account/a-1"), "cheques/STATE_VOIDED", 1)
    texts = await system.find_problems()
    assert [text for text in texts if text.startswith(f"{key('index', 'account/a-1')}: not a sorted set")]
