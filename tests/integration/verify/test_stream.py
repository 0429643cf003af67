"""Each fault that can be planted into the stream is found and named."""

import asyncio
from typing import Any

import pytest

from contracts import streams
from tests.support.harness.verified_system import Stored, System


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
