"""Each fault that can be planted into a system at rest is found and named, and a whole system is clean."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import nats
import pytest
from diptych.ordering.v1.types_pb2 import Order, OrderHistoryEntry
from redis.asyncio import Redis

from operations.ports import free_port
from operations.servers import Nats, Postgres, Valkey
from operations.stack import variables
from operations.verify import sets
from operations.verify.findings import CHECKS, Problem
from operations.verify.verification import verify
from runtime import streams
from runtime.settings import Settings
from tests.integration.verifying import HISTORIES, ORDERS, Origin, Stored, System, fill, laid_out
from tests.support.servers import TEMPLATE

ORIGIN = "verify_origin"
_numbers = count(1)


@pytest.fixture(scope="module")
async def origin(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, nats_server: Nats, redis_server: Valkey
) -> Origin:
    client = await nats.connect(nats_server.url)
    for stream in await client.jetstream().streams_info():
        await client.jetstream().delete_stream(stream.config.name or "")
    await client.close()
    async with Redis.from_url(redis_server.url) as redis:
        await redis.flushall()
    await postgres.execute(f"CREATE DATABASE {ORIGIN} TEMPLATE {TEMPLATE}")
    await postgres.execute("UPDATE relay_state SET incarnation = gen_random_uuid()", ORIGIN)
    folder = tmp_path_factory.mktemp("origin")
    return await fill(folder, postgres.url_of(ORIGIN), nats_server.url, redis_server.url)


@pytest.fixture
async def system(origin: Origin, postgres: Postgres, nats_url: str, redis_url: str) -> AsyncIterator[System]:
    name = f"verify_{next(_numbers)}"
    await postgres.execute(f"CREATE DATABASE {name} TEMPLATE {ORIGIN}")
    async with laid_out(origin, postgres.url_of(name), nats_url, redis_url) as system:
        yield system
    await postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def key(kind: str, name: str, projection: str = "ordering.order") -> str:
    return f"{kind}:{projection}:1:{{{name}}}"


async def member(system: System, order_id: str) -> str:
    """Return what stands for an order in indexes."""
    found: Any = await system.redis.zrange(key("index", "all"), 0, -1)
    return next(name for name in map(bytes.decode, found) if name.endswith(f":{order_id}"))


async def test_a_system_at_rest_is_clean(system: System) -> None:
    report = await system.verify()
    assert (report.problems, report.notes) == ([], [])
    assert report.counted["streams"] == report.counted["snapshots"] == 5
    assert report.counted["events"] == report.counted["messages"] == report.counted["history"] == 18
    assert report.counted["views"] == 10
    assert report.counted["indexes"] == 20
    assert report.counted["requests"] == report.counted["outbox"] == 18


# The event store.


async def test_a_gap_in_versions(system: System) -> None:
    await system.sql("DELETE FROM events WHERE stream = 'ordering.order.o-2' AND version = 2")
    found = await system.found()
    assert "stream ordering.order.o-2: version 2 of 3 is missing" in found
    assert any("its receipt names ordering.order.o-2@2, which does not exist" in line for line in found)
    assert any(line.startswith("outbox ") and "no event at this position" in line for line in found)
    assert any(line.startswith("message ") and "PostgreSQL has no event" in line for line in found)


async def test_a_version_of_a_stream_that_is_not_its_last_events(system: System) -> None:
    await system.sql("UPDATE streams SET version = 4 WHERE id = 'ordering.order.o-2'")
    assert await system.found() == [
        "stream ordering.order.o-2: streams.version is 4, its last event has version 3"
    ]


async def test_a_stream_without_events_and_events_without_a_stream(system: System) -> None:
    await system.sql("UPDATE streams SET id = 'ordering.order.o-9' WHERE id = 'ordering.order.o-5'")
    assert await system.found() == [
        "stream ordering.order.o-5: it has events, but no row in streams",
        "stream ordering.order.o-9: it has a row in streams, but no events",
    ]


async def test_an_event_recorded_before_the_one_before_it(system: System) -> None:
    await system.sql(
        "UPDATE events SET recorded_at = '2020-01-01Z' WHERE stream = 'ordering.order.o-2' AND version = 2"
    )
    found = await system.found()
    assert any(
        line.startswith("stream ordering.order.o-2: version 2 was recorded at 2020-01-01") for line in found
    )
    assert any(line.startswith("event ordering.order.o-2@2: message ") for line in found)


async def test_an_event_whose_bytes_are_not_its_message(system: System) -> None:
    await system.sql(r"UPDATE events SET data = '\xff' WHERE stream = 'ordering.order.o-5'")
    assert (
        "event ordering.order.o-5@1: its bytes are no diptych.ordering.v2.OrderPlaced" in await system.found()
    )


async def test_an_event_of_an_unknown_type(system: System) -> None:
    await system.sql("UPDATE events SET type = 'a.v1.B' WHERE stream = 'ordering.order.o-5'")
    assert "event ordering.order.o-5@1: a.v1.B is no event of its context" in await system.found()


async def test_events_that_do_not_belong_together(system: System) -> None:
    await system.sql(
        "UPDATE events SET type = 'diptych.ordering.v1.OrderPlaced', data = '' "
        "WHERE stream = 'ordering.order.o-2' AND version = 2"
    )
    found = await system.found()
    assert any(line.startswith("event ordering.order.o-2@2: it cannot be folded: ") for line in found)


async def test_a_receipt_of_a_version_that_does_not_exist(system: System) -> None:
    await system.sql(
        """UPDATE requests SET receipt = '{"ordering.order.o-5": 2}' WHERE stream LIKE '%.o-5'"""
    )
    (found,) = await system.found()
    assert found.startswith("request ")
    assert found.endswith("its receipt names ordering.order.o-5@2, which does not exist")


async def test_a_row_of_the_outbox_without_an_event(system: System) -> None:
    await system.sql("INSERT INTO outbox (position) VALUES (1000)")
    assert await system.found() == ["outbox 1000: there is no event at this position"]


async def test_cleaned_up_rows_of_the_outbox_are_no_fault(system: System) -> None:
    await system.sql("DELETE FROM outbox")
    assert await system.found() == []


# Snapshots.


async def test_a_snapshot_of_another_fold(system: System) -> None:
    await system.sql(
        "UPDATE streams SET state = jsonb_set(state::jsonb, '{status}', '\"SHIPPED\"')::json "
        "WHERE id LIKE '%.o-2'"
    )
    assert await system.found() == [
        'snapshot of ordering.order.o-2: status is "SHIPPED", the fold says "CANCELLED" at version 3'
    ]


async def test_a_snapshot_with_another_line(system: System) -> None:
    await system.sql(
        "UPDATE streams SET state = jsonb_set(state::jsonb, "
        "'{contents,groups,0,lines,0,quantity}', '7')::json WHERE id LIKE '%.o-1'"
    )
    (found,) = await system.found()
    assert found.startswith("snapshot of ordering.order.o-1: contents is ")


@pytest.mark.parametrize("state", ["[]", '"PLACED"'])
async def test_a_snapshot_of_another_form(system: System, state: str) -> None:
    await system.sql(f"UPDATE streams SET state = '{state}' WHERE id LIKE '%.o-2'")
    assert await system.found() == ["snapshot of ordering.order.o-2: it is no JSON object"]


async def test_a_snapshot_ahead_of_its_stream(system: System) -> None:
    await system.sql("UPDATE streams SET state_version = 4 WHERE id LIKE '%.o-2'")
    assert await system.found() == ["snapshot of ordering.order.o-2: it is at version 4 of 3"]


async def test_a_snapshot_that_lags_is_compared_at_its_own_version(system: System) -> None:
    placed = "(SELECT state FROM streams WHERE id LIKE '%.o-5')"
    await system.sql(f"UPDATE streams SET state = {placed}, state_version = 1 WHERE id LIKE '%.o-2'")
    (found,) = await system.found()
    assert found.startswith('snapshot of ordering.order.o-2: customer_id is "bob", the fold says "ada"')


async def test_snapshots_of_other_code_are_passed_over_and_counted(system: System) -> None:
    await system.sql("UPDATE streams SET state = '{}', fingerprint = 'old' WHERE id LIKE '%.o-2'")
    report = await system.verify()
    assert report.clean
    assert (report.counted["snapshots"], report.counted["skipped"]) == (4, 1)


# The stream.


async def test_an_event_missing_from_the_stream(system: System) -> None:
    await system.connection.js.delete_msg(streams.JETSTREAM, 3)
    missing = system.origin.messages[2][1]["ce-id"]
    assert await system.found() == [
        "stream DIPTYCH: it holds 17 of 18 messages",
        f"event {missing}: it is not in the stream, and marked as message 3",
    ]


async def test_an_event_missing_from_the_stream_and_the_outbox(system: System) -> None:
    await system.connection.js.delete_msg(streams.JETSTREAM, 3)
    await system.sql("DELETE FROM outbox")
    missing = system.origin.messages[2][1]["ce-id"]
    assert (
        f"event {missing}: it is not in the stream, and without a row in the outbox" in await system.found()
    )


async def test_an_event_that_stays_pending(system: System) -> None:
    last = system.origin.messages[-1][1]
    await system.restream(lambda messages: messages[:-1])
    position = int(last["diptych-position"])
    await system.sql("UPDATE outbox SET epoch = NULL, sequence = NULL WHERE position = $1", position)
    assert f"event {last['ce-id']}: it is still pending in the outbox" in await system.found(within=1)


async def test_an_event_that_is_published_a_moment_later_is_no_fault(system: System) -> None:
    last = system.origin.messages[-1]
    await system.restream(lambda messages: messages[:-1])
    looking = asyncio.create_task(system.found(within=60))
    done, _ = await asyncio.wait({looking}, timeout=2)
    assert not done
    await system.publish(*last)
    assert await looking == []


async def test_an_event_twice_in_the_stream(system: System) -> None:
    again = system.origin.messages[2]
    await system.publish(*again)
    assert await system.found() == [
        f"message 19: event {again[1]['ce-id']} is in the stream twice, first as message 3"
    ]


def with_third(subject: str | None = None, data: bytes | None = None, **headers: str) -> Any:
    """Return what changes the third message."""

    def change(messages: list[Stored]) -> list[Stored]:
        old_subject, old_headers, old_data = messages[2]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        messages[2] = subject or old_subject, {**old_headers, **named}, data or old_data
        return messages

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_third(data=b"other"),
        with_third(diptych_actor="mallory"),
        with_third(ce_type="diptych.ordering.v1.OrderConfirmed"),
        with_third(diptych_version="1"),
        with_third(ce_time="2020-01-01T00:00:00+00:00"),
        with_third(new_header="1"),
        with_third(subject="diptych.events.0.ordering.order.o-1"),
    ],
    ids=["data", "actor", "type", "version", "time", "header", "subject"],
)
async def test_a_message_that_is_not_its_event(system: System, change: Any) -> None:
    await system.restream(change)
    event = system.origin.messages[2][1]["ce-id"]
    assert await system.found() == [f"event {event}: message 3 is not what PostgreSQL has"]


async def test_a_message_of_no_relay(system: System) -> None:
    await system.publish("diptych.events.0.x.y.z", {}, b"hello")
    assert await system.found() == ["message 19: no relay published it: diptych.events.0.x.y.z, position ''"]


@pytest.mark.parametrize("position", ["1000", "999999999999999999"])
async def test_a_message_whose_event_does_not_exist(system: System, position: str) -> None:
    subject, headers, data = system.origin.messages[2]
    await system.publish(subject, {**headers, "diptych-position": position}, data)
    (found,) = await system.found()
    assert found.startswith("message 19: ")


async def test_messages_of_one_aggregate_out_of_order(system: System) -> None:
    await system.restream(lambda messages: [messages[1], messages[0], *messages[2:]])
    found = await system.found()
    assert "event ordering.order.o-1@2: message 1 comes before that of an earlier version" in found
    assert "event ordering.order.o-1@1: it is marked as message 1, and is 2" in found


async def test_a_mark_of_another_epoch(system: System) -> None:
    await system.sql("UPDATE outbox SET epoch = gen_random_uuid() WHERE sequence = 3")
    (found,) = await system.found()
    assert found.startswith(
        f"event {system.origin.messages[2][1]['ce-id']}: it is marked as published in epoch "
    )


async def test_no_stream(system: System) -> None:
    await system.connection.js.delete_stream(streams.JETSTREAM)
    assert "stream DIPTYCH: there is none; the relay makes it" in await system.found(within=0.5)


# Views.


async def test_an_order_with_one_field_changed(system: System) -> None:
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    assert await system.found() == [
        "view ordering.order o-2: state is STATE_PLACED, the fold says STATE_CANCELLED at version 3"
    ]


async def test_a_history_with_one_field_changed(system: System) -> None:
    await system.change_view(HISTORIES, "o-2", order_id="o-3")
    assert await system.found() == [
        "view ordering.order_history o-2: order_id is o-3, the fold says o-2 at version 3"
    ]


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_missing_view(system: System, view: Any) -> None:
    await system.redis.delete(view.key("o-2"))
    found = await system.found()
    assert f"view {view.projection} o-2: it is missing, the aggregate is at version 3" in found


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_view_too_many(system: System, view: Any) -> None:
    await system.redis.copy(view.key("o-2"), view.key("o-9"))
    assert await system.found() == [f"view {view.projection} o-9: there is no such aggregate"]


async def test_a_view_that_has_stayed_behind(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), mapping={"version": "2", "settled": "2"})
    assert "view ordering.order o-2: it is at version 2, the aggregate at 3" in await system.found()


async def test_a_view_that_is_ahead(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), mapping={"version": "4", "settled": "4"})
    assert await system.found() == ["view ordering.order o-2: it is at version 4, the aggregate at 3"]


async def test_a_view_that_has_not_settled(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "settled", "2")
    assert await system.found() == ["view ordering.order o-2: it is settled at version 2, and at 3"]


@pytest.mark.parametrize("column", ["state", "customer_id", "total", "place_time"])
async def test_a_column_that_shows_something_else(system: System, column: str) -> None:
    await system.redis.hset(ORDERS.key("o-2"), column, "x")
    (found,) = await system.found()
    assert found.startswith(f"view ordering.order o-2: column {column} shows 'x', the fold says ")


@pytest.mark.parametrize("name", ["entries", "stale", "amounts"])
async def test_a_view_that_remembers_other_entries(system: System, name: str) -> None:
    await system.redis.hset(ORDERS.key("o-2"), name, '[["x","y"]]')
    assert await system.found() == [
        f'view ordering.order o-2: {name} is [["x","y"]], not what the fold says at version 3'
    ]


@pytest.mark.parametrize("view", [ORDERS, HISTORIES], ids=["order", "history"])
async def test_a_parked_aggregate(system: System, view: Any) -> None:
    record = {"version": 3, "error": "UnknownEvent: x", "state": "parked"}
    await system.redis.hset(view.key("o-2"), mapping={"parked": json.dumps(record)})
    assert await system.found() == [f"view {view.projection} o-2: it is parked at version 3: UnknownEvent: x"]


async def test_an_aggregate_that_is_only_listed_as_parked(system: System) -> None:
    await system.redis.hset(ORDERS.parked, "o-2", "{}")
    assert await system.found(within=0.5) == [
        "projection ordering.order: o-2 is listed as parked, and is not"
    ]


# What lies beside the views.


@pytest.mark.parametrize(
    "index", ["all", "customer/ada", "state/STATE_CANCELLED", "customer_state/ada/STATE_CANCELLED"]
)
async def test_an_index_that_lacks_a_member(system: System, index: str) -> None:
    gone = await member(system, "o-2")
    await system.redis.zrem(key("index", index), gone)
    assert await system.found() == [f"{key('index', index)}: {gone} is not in it"]


async def test_an_index_with_another_score(system: System) -> None:
    moved = await member(system, "o-2")
    await system.redis.zadd(key("index", "all"), {moved: 1})
    assert await system.found() == [f"{key('index', 'all')}: {moved} has the score 1.0"]


async def test_an_index_with_a_member_too_many(system: System) -> None:
    other = await member(system, "o-2")
    await system.redis.zadd(key("index", "state/STATE_RETURNED"), {other: 0, "0000:o-9": 0})
    assert sorted(await system.found()) == [
        f"{key('index', 'state/STATE_RETURNED')}: it has 0000:o-9, which no view demands",
        f"{key('index', 'state/STATE_RETURNED')}: it has {other}, which no view demands",
    ]


async def test_an_index_too_many(system: System) -> None:
    await system.redis.zadd(key("index", "customer/eve"), {"0000:o-9": 0})
    assert await system.found() == [f"{key('index', 'customer/eve')}: it has 0000:o-9, which no view demands"]


async def test_an_index_that_is_no_sorted_set(system: System) -> None:
    await system.redis.set(key("index", "customer/eve"), "x")
    (found,) = await system.found()
    assert found.startswith(f"{key('index', 'customer/eve')}: it is no sorted set")


async def test_a_counter_that_is_wrong(system: System) -> None:
    await system.redis.hincrby(key("total", "customer/ada"), "orders/STATE_CANCELLED", 1)
    assert await system.found() == [
        f"{key('total', 'customer/ada')}: orders/STATE_CANCELLED is 2, the views have added 1"
    ]


async def test_a_counter_too_many_and_a_total_too_many(system: System) -> None:
    await system.redis.hset(key("total", "customer/ada"), "orders/STATE_HELD", "0")
    await system.redis.hset(key("total", "customer/eve"), "orders/STATE_HELD", "1")
    assert sorted(await system.found()) == [
        f"{key('total', 'customer/ada')}: orders/STATE_HELD is 0, the views have added 0",
        f"{key('total', 'customer/eve')}: orders/STATE_HELD is 1, the views have added 0",
    ]


async def test_a_missing_total(system: System) -> None:
    await system.redis.delete(key("total", "customer/bob"))
    found = await system.found()
    assert f"{key('total', 'customer/bob')}: orders/STATE_PLACED is 0, the views have added 2" in found
    assert len(found) == 3


async def test_a_counter_that_does_not_hold_what_the_view_adds(system: System) -> None:
    await system.redis.hset(ORDERS.key("o-2"), "added", "[]")
    found = await system.found()
    assert "view ordering.order o-2: added is [], not what the fold says at version 3" in found
    assert f"{key('total', 'customer/ada')}: orders/STATE_CANCELLED is 1, the views have added 0" in found


async def test_a_history_that_lacks_an_entry(system: System) -> None:
    await system.redis.hdel(HISTORIES.log("o-2"), "2")
    assert await system.found() == ["log ordering.order_history o-2: it has no entry 2"]


async def test_a_history_entry_that_tells_something_else(system: System) -> None:
    stored: Any = await system.redis.hget(HISTORIES.log("o-2"), "2")
    entry = OrderHistoryEntry.FromString(stored)
    entry.actor = "mallory"
    await system.redis.hset(HISTORIES.log("o-2"), "2", entry.SerializeToString())
    assert await system.found() == [
        "log ordering.order_history o-2: in entry 2, actor is mallory, the fold says alice"
    ]


async def test_a_history_entry_too_many(system: System) -> None:
    await system.redis.hset(HISTORIES.log("o-2"), "4", b"")
    await system.redis.hset(HISTORIES.log("o-9"), "1", b"")
    assert await system.found() == [
        "log ordering.order_history o-2: it has an entry 4, which no event is behind",
        "log ordering.order_history o-9: there is no such aggregate",
    ]


async def test_an_order_that_its_customers_changes_do_not_name(system: System) -> None:
    await system.redis.zrem(key("changes", "customer/ada"), "o-2")
    assert await system.found() == [f"set of {key('changes', 'customer/ada')}: o-2 is not in it"]


async def test_changes_that_name_an_order_too_many(system: System) -> None:
    await system.redis.zadd(key("changes", "customer/ada"), {"o-5": 99})
    assert await system.found() == [
        f"set of {key('changes', 'customer/ada')}: it has o-5, which no view demands"
    ]


# Progress.


async def test_progress_beyond_the_end_of_the_stream(system: System) -> None:
    await system.redis.hset(ORDERS.progress, "3", f"{system.origin.epoch}/19")
    assert await system.found() == ["projection ordering.order: partition 3 is at 19, the stream ends at 18"]


async def test_progress_in_another_epoch(system: System) -> None:
    await system.redis.hset(ORDERS.progress, "3", "other/1")
    assert await system.found(within=0.5) == [
        "projection ordering.order: 1 partitions are in another epoch than the stream"
    ]


@pytest.mark.parametrize("name", ["present", "fill", "progress"])
async def test_a_projection_that_is_not_there(system: System, name: str) -> None:
    await system.redis.delete(getattr(HISTORIES, name))
    (found,) = await system.found(within=0.5)
    assert found.startswith("projection ordering.order_history: ")


async def test_views_are_waited_for_while_a_projection_is_behind(system: System) -> None:
    stored: Any = await system.redis.dump(ORDERS.key("o-2"))
    progress: Any = await system.redis.hgetall(ORDERS.progress)
    await system.redis.hset(ORDERS.progress, mapping=dict.fromkeys(progress, f"{system.origin.epoch}/0"))
    await system.redis.delete(ORDERS.key("o-2"))
    looking = asyncio.create_task(system.found(within=60))
    done, _ = await asyncio.wait({looking}, timeout=2)
    assert not done
    await system.redis.restore(ORDERS.key("o-2"), 0, stored)
    assert await looking == []


async def test_a_projection_that_is_wiped_while_it_is_looked_at_is_looked_at_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = sets.check, count(1)

    async def wiped_at_first(redis: Any, reading: Any, *rest: Any) -> AsyncIterator[Problem]:
        first = reading.view == ORDERS and next(looks) == 1
        if first:
            await begin_wiping(system)
        async for problem in look(redis, reading, *rest):
            yield problem
        if first:
            await fill_again(system)

    monkeypatch.setattr(sets, "check", wiped_at_first)
    report = await system.verify()
    assert (report.problems, report.notes, next(looks)) == ([], [], 3)


async def begin_wiping(system: System) -> None:
    """Wipe what a projector that begins another filling wipes first: all views, some of what follows them."""
    await system.redis.set(ORDERS.fill, f"{system.origin.incarnation}/second/wiping")
    await system.redis.delete(ORDERS.present, *(ORDERS.key(f"o-{number}") for number in range(1, 6)))
    await system.redis.zrem(key("index", "all"), await member(system, "o-2"))
    await system.redis.delete(key("total", "customer/ada"))


async def fill_again(system: System) -> None:
    for name, value in system.origin.keys.items():
        await system.redis.restore(name, 0, value, replace=True)
    await system.redis.set(ORDERS.fill, f"{system.origin.incarnation}/second")


# How it is told.


async def test_the_page_has_a_line_for_each_check(system: System) -> None:
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    lines = (await system.verify()).page().splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(CHECKS)
    assert lines[0] == "events     18 in 5 streams: gapless"
    assert lines[6] == "views      10 views: 1 finding"
    assert lines[-1] == (
        "view ordering.order o-2: state is STATE_PLACED, the fold says STATE_CANCELLED at version 3"
    )


async def test_machines_get_an_object(system: System) -> None:
    await system.redis.zrem(key("changes", "customer/ada"), "o-2")
    report = json.loads((await system.verify()).json())
    assert (report["clean"], report["found"]) == (False, {"changes": 1})
    assert report["findings"] == [
        {
            "check": "changes",
            "subject": f"set of {key('changes', 'customer/ada')}",
            "text": "o-2 is not in it",
        }
    ]
    assert report["counted"]["events"] == 18


async def test_more_findings_than_are_shown_are_counted(system: System) -> None:
    for number in range(1, 6):
        await system.redis.hset(ORDERS.key(f"o-{number}"), "state", "x")
    report = await verify(system.settings, shown=2)
    assert report.found["views"] == 5
    assert report.page().splitlines()[-1] == "and 3 more findings; --findings shows more of them"


async def diptych_verify(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, and what was said on stdout and stderr."""
    program = Path(sys.executable).with_name("diptych")
    environment = {**os.environ, **variables(settings)}
    process = await asyncio.create_subprocess_exec(
        program, "verify", *arguments, env=environment, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_exit_code_says_whether_there_is_drift(system: System) -> None:
    code, out, err = await diptych_verify(system.settings)
    assert (code, err) == (0, "")
    assert out.startswith("events     18 in 5 streams: gapless\n")
    await system.change_view(ORDERS, "o-2", state=Order.STATE_PLACED)
    code, out, err = await diptych_verify(system.settings, "--within", "5s", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["found"] == {"views": 1}


@pytest.mark.parametrize("setting", ["database_url", "nats_url", "redis_url"])
async def test_a_server_that_is_away_is_one_line_and_another_exit_code(system: System, setting: str) -> None:
    away = f"{getattr(system.settings, setting).partition(':')[0]}://127.0.0.1:{free_port()}"
    code, out, err = await diptych_verify(system.settings.model_copy(update={setting: away}))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("could not be checked: ")
