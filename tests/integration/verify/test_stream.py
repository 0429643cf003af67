"""Faults planted in the stream are found and named."""

import asyncio
from typing import Any

import pytest

from contracts import streams
from tests.support.harness.verified_system import Stored, System


async def test_an_event_missing_from_the_stream(system: System) -> None:
    await system.connection.js.delete_msg(streams.JETSTREAM, 3)
    missing = system.origin.messages[2][1]["ce-id"]
    assert await system.find_problems() == [
        "stream DIPTYCH: holds 15 of 16 messages",
        f"event {missing}: missing in the stream; outbox has message 3",
    ]


async def test_an_event_missing_from_the_stream_and_the_outbox(system: System) -> None:
    await system.connection.js.delete_msg(streams.JETSTREAM, 3)
    await system.sql("DELETE FROM outbox")
    missing = system.origin.messages[2][1]["ce-id"]
    assert f"event {missing}: missing in the stream; no outbox row" in await system.find_problems()


async def test_an_event_that_stays_pending(system: System) -> None:
    last = system.origin.messages[-1][1]
    await system.restream(lambda messages: messages[:-1])
    position = int(last["diptych-position"])
    await system.sql("UPDATE outbox SET epoch = NULL, sequence = NULL WHERE position = $1", position)
    assert f"event {last['ce-id']}: still pending in the outbox" in await system.find_problems(within=1)


async def test_an_event_that_is_published_later_is_no_fault(system: System) -> None:
    last = system.origin.messages[-1]
    await system.restream(lambda messages: messages[:-1])
    verifying = asyncio.create_task(system.find_problems(within=60))
    done, _ = await asyncio.wait({verifying}, timeout=2)
    assert not done
    await system.publish(*last)
    assert await verifying == []


async def test_an_event_twice_in_the_stream(system: System) -> None:
    message = system.origin.messages[2]
    await system.publish(*message)
    assert await system.find_problems() == [
        f"message 17: duplicate of event {message[1]['ce-id']}, first published as message 3"
    ]


def change_third(subject: str | None = None, data: bytes | None = None, **headers: str) -> Any:
    """Return a function that changes the third message."""

    def change(messages: list[Stored]) -> list[Stored]:
        old_subject, old_headers, old_data = messages[2]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        messages[2] = subject or old_subject, {**old_headers, **named}, data or old_data
        return messages

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_third(data=b"other"),
        change_third(diptych_actor="mallory"),
        change_third(ce_type="acme.ledger.v1.ChequeVoided"),
        change_third(diptych_version="1"),
        change_third(ce_time="2020-01-01T00:00:00+00:00"),
        change_third(diptych_new="1"),
        change_third(subject="diptych.events.0.ledger.cheque.c-1"),
    ],
    ids=["data", "actor", "type", "version", "time", "header", "subject"],
)
async def test_a_message_that_differs_from_its_event(system: System, change: Any) -> None:
    await system.restream(change)
    event = system.origin.messages[2][1]["ce-id"]
    assert await system.find_problems() == [f"event {event}: message 3 differs from PostgreSQL"]


async def test_foreign_messages_are_noted(system: System) -> None:
    """A message without a signature, and one that was signed for another place."""
    subject, headers, data = system.origin.messages[2]
    await system.connection.js.publish("diptych.events.0.x.y.z", b"hello")
    await system.connection.js.publish(subject, data, headers=headers)
    report = await system.verify()
    assert report.clean
    assert "2 foreign messages in the stream, which all readers skip" in report.notes


async def test_a_message_that_fits_no_event(system: System) -> None:
    await system.publish("diptych.events.0.x.y.z", {}, b"hello")
    assert await system.find_problems() == [
        "message 17: not published by a relay: subject diptych.events.0.x.y.z, position ''"
    ]


@pytest.mark.parametrize("position", ["1000", "999999999999999999"])
async def test_a_message_whose_event_does_not_exist(system: System, position: str) -> None:
    subject, headers, data = system.origin.messages[2]
    await system.publish(subject, {**headers, "diptych-position": position}, data)
    (problem,) = await system.find_problems()
    assert problem.startswith("message 17: ")


async def test_messages_of_one_aggregate_out_of_order(system: System) -> None:
    await system.restream(lambda messages: [messages[1], messages[0], *messages[2:]])
    problems = await system.find_problems()
    assert "event ledger.cheque.c-1@2: message 1 precedes that of an earlier version" in problems
    assert "event ledger.cheque.c-1@1: message 2 in the stream, message 1 in the outbox" in problems


async def test_an_outbox_row_of_another_epoch(system: System) -> None:
    await system.sql("UPDATE outbox SET epoch = gen_random_uuid() WHERE sequence = 3")
    (problem,) = await system.find_problems()
    assert problem.startswith(f"event {system.origin.messages[2][1]['ce-id']}: outbox has epoch ")


async def test_no_stream(system: System) -> None:
    await system.connection.js.delete_stream(streams.JETSTREAM)
    assert "stream DIPTYCH: missing; the relay creates it" in await system.find_problems(within=0.5)
