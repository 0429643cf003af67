import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from command_server.relay import housekeeping
from command_server.relay.observer import Observed
from command_server.relay.relay import Publisher
from contracts.envelope import RecordedEvent
from contracts.streams import WAKE_SUBJECT, subject
from devstack.servers import Nats
from runtime.process import logs
from runtime.telemetry import tracing
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.waiting import until


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Writer]:
    async with feed.writer(database_url) as writer:
        yield writer


async def test_events_are_published_in_the_outboxs_order_with_all_that_is_known_of_them(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    async with feed.relay(database_url, own_nats.url) as relay:
        metadata = {"actor": "alice", "correlation_id": "c", "causation_id": "r", "command": "Do"}
        await writer.commit("x", "y", "x", data=b"\x00\xff", metadata=json.dumps(metadata))
        await writer.commit("y")
        await writer.all_published()
        found = await feed.assert_whole(relay.connection, writer)
    assert [(event.stream, event.version) for event in found.values()] == [
        ("a.b.x", 1),
        ("a.b.y", 1),
        ("a.b.x", 2),
        ("a.b.y", 2),
    ]
    (recorded_at,) = (await writer.rows("SELECT recorded_at FROM events WHERE position = 1"))[0]
    assert found[1] == RecordedEvent("a.b.x", 1, "a.v1.Happened", b"\x00\xff", recorded_at, 1, metadata)


async def test_a_message_lies_under_its_aggregates_subject(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.commit("x")
        await writer.all_published()
        message = await relay.connection.js.get_msg("DIPTYCH", seq=1)
    assert message.subject == subject("a.b.x")


async def test_thousands_of_events_go_in_batches_of_a_thousand(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    sizes = []

    class Measured:
        def __init__(self, publisher: Publisher) -> None:
            self._publisher = publisher

        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            sizes.append(len(events))
            return await self._publisher.publish(epoch, events, after)

    await writer.commit(*[str(n % 700) for n in range(2_500)])
    async with feed.relay(database_url, own_nats.url, Measured) as relay:
        await writer.all_published()
        await feed.assert_whole(relay.connection, writer)
        assert sizes == [1_000, 1_000, 500]
        sizes.clear()
        await writer.commit(*"abcdefghijkl", data=bytes(900_000))
        await writer.all_published()
        await feed.assert_whole(relay.connection, writer)
        assert sizes == [4, 4, 4]


async def test_what_a_transaction_held_open_while_others_commit_is_not_skipped(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The outbox's floor rises as fast as it may.
    monkeypatch.setattr("command_server.relay.outbox_floor.AGE", 0.0)
    monkeypatch.setattr("command_server.relay.relay.CHECK", 0.01)
    monkeypatch.setattr("command_server.relay.relay.POLL", 0.01)
    async with feed.relay(database_url, own_nats.url) as relay:
        async with writer.transaction() as held:
            await writer.append(held, "held", "held")
            for _ in range(30):
                await writer.commit("x", "y")
                await asyncio.sleep(0.01)
            await writer.all_published()
        await writer.commit("held", "x")
        await writer.all_published()
        found = await feed.assert_whole(relay.connection, writer)
    assert [event.position for event in found.values()] == [*range(3, 63), 1, 2, 63, 64]


async def test_a_wake_up_call_spares_the_wait_for_the_next_look(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.POLL", 60.0)
    await writer.commit("x")
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.all_published()
        for _ in range(20):
            await writer.commit("x")
            started = monotonic()
            await relay.connection.client.publish(WAKE_SUBJECT)
            await writer.all_published(seconds=2)
            assert monotonic() - started < 2


async def test_marked_rows_are_deleted_after_their_retention_and_pending_ones_are_not(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "CHUNK", 2)
    await writer.commit(*"abcdefg")
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.all_published()
        await relay.stop()
        await writer.rows("UPDATE outbox SET published_at = now() - interval '1 hour' WHERE position < 6")
        await writer.commit("a")
        reports: list[int] = []
        tidying = asyncio.create_task(housekeeping.keep_house(relay.outbox, 1800, reports.append))

        async def tidied() -> bool:
            return len(await writer.rows("SELECT position FROM outbox")) == 3

        await until(tidied)
        tidying.cancel()
        await asyncio.wait({tidying})
    assert [row[0] for row in await writer.rows("SELECT position FROM outbox ORDER BY 1")] == [6, 7, 8]
    assert reports[0] == 1


async def test_every_event_is_told_of_once_it_is_acknowledged(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider, lines = InMemorySpanExporter(), TracerProvider(), io.BytesIO()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr("command_server.relay.observer.log", logs.get_logger("relay"))
    logs.configure(file=lines)
    trace = "0af7651916cd43dd8448eb211c80319c"
    sampled, unsampled = f"00-{trace}-b7ad6b7169203331-01", f"00-{trace}-b7ad6b7169203331-00"
    async with feed.relay(database_url, own_nats.url, Observed):
        await writer.commit("x", metadata=json.dumps({"correlation_id": "c-1", "traceparent": sampled}))
        await writer.commit("y", metadata=json.dumps({"correlation_id": "c-2", "traceparent": unsampled}))
        await writer.all_published()
    logs.flush()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    published = [line for line in told if line["message"] == "Event published"]
    (recorded_at,) = (await writer.rows("SELECT recorded_at FROM events WHERE position = 1"))[0]
    assert (
        published[0]
        | {
            "eventId": "a.b.x@1",
            "eventType": "a.v1.Happened",
            "aggregateId": "x",
            "correlationId": "c-1",
            "timestamp": recorded_at.isoformat(),
        }
        == published[0]
    )
    assert [line["eventId"] for line in published] == ["a.b.x@1", "a.b.y@1"]
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind.name, f"{span.context.trace_id:032x}") == (
        "publish DIPTYCH",
        "PRODUCER",
        trace,
    )
