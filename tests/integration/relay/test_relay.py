"""The relay without faults: order, batches, notifications, maintenance, telemetry."""

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from uuid import uuid4

import pytest
from nats.aio.msg import Msg
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from command_server.relay import metrics, outbox_maintenance
from command_server.relay.batch_sender import Publisher
from command_server.relay.observer import ObservedPublisher
from command_server.relay.outbox import Outbox
from contracts.envelope import RecordedEvent
from contracts.streams import PUBLISHED_SUBJECT, WAKE_SUBJECT, subject
from devstack.servers import Nats
from runtime.jetstream import UNREACHABLE, Connection, PublicationClock
from runtime.process import logs
from runtime.process.lifecycle import cancel_and_wait
from runtime.telemetry import tracing
from tests.support.harness import feed
from tests.support.harness.feed import Writer
from tests.support.harness.keys import FEED_REPLIES
from tests.support.harness.log_lines import own_lines
from tests.support.harness.waiting import until


async def test_events_are_published_in_order_with_all_their_metadata(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    async with feed.relay(database_url, own_nats.url) as relay:
        metadata = {"actor": "alice", "correlation_id": "c", "causation_id": "r", "command": "Do"}
        await writer.commit("x", "y", "x", data=b"\x00\xff", metadata=json.dumps(metadata))
        await writer.commit("y")
        await writer.wait_until_published()
        events = await feed.assert_whole(relay.connection, writer)
    assert [(event.stream, event.version) for event in events.values()] == [
        ("a.b.x", 1),
        ("a.b.y", 1),
        ("a.b.x", 2),
        ("a.b.y", 2),
    ]
    (recorded_at,) = (await writer.query("SELECT recorded_at FROM events WHERE position = 1"))[0]
    assert events[1] == RecordedEvent("a.b.x", 1, "a.v1.Happened", b"\x00\xff", recorded_at, 1, metadata)


@pytest.mark.parametrize(
    "garbage", ["3", "[]", "null", '{"actor": 5}', '{"actor": "a\\r\\nx: y", "b c": "d"}']
)
async def test_an_event_whose_metadata_cannot_be_read_holds_back_no_other(
    database_url: str, own_nats: Nats, writer: Writer, garbage: str
) -> None:
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.commit("x", metadata=garbage)
        await writer.commit("y")
        await writer.wait_until_published()
        events = await feed.assert_whole(relay.connection, writer)
    assert [(event.stream, event.metadata) for event in events.values()] == [
        ("a.b.x", {}),
        ("a.b.y", {"actor": "alice"}),
    ]


async def test_a_message_has_its_aggregates_subject(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.commit("x")
        await writer.wait_until_published()
        message = await relay.connection.js.get_msg("DIPTYCH", seq=1)
    assert message.subject == subject("a.b.x")


async def test_thousands_of_events_are_published_in_batches_of_a_thousand(
    database_url: str, own_nats: Nats, writer: Writer
) -> None:
    sizes = []
    for metric in (metrics.PUBLISHED, metrics.PUBLICATION_SIZE, metrics.PUBLICATION_DURATION):
        metric.clear()

    class MeasuredPublisher:
        def __init__(self, publisher: Publisher) -> None:
            self._publisher = ObservedPublisher(publisher)

        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            sizes.append(len(events))
            return await self._publisher.publish(epoch, events, after)

    await writer.commit(*[str(n % 700) for n in range(2_500)])
    async with feed.relay(database_url, own_nats.url, MeasuredPublisher) as relay:
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)
        assert sizes == [1_000, 1_000, 500]
        assert metrics.PUBLISHED.sums == {(): 2_500}
        size = metrics.PUBLICATION_SIZE.distributions[()]
        duration = metrics.PUBLICATION_DURATION.distributions[()]
        assert (size.total, sum(size.buckets)) == (2_500, 3)
        assert sum(duration.buckets) == 3
        assert duration.minimum > 0
        sizes.clear()
        await writer.commit(*"abcdefghijkl", data=bytes(900_000))
        await writer.wait_until_published()
        await feed.assert_whole(relay.connection, writer)
        assert sizes == [4, 4, 4]


async def test_events_of_a_long_transaction_are_not_skipped(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The floor rises as fast as possible.
    monkeypatch.setattr("command_server.relay.outbox_floor.MIN_AGE", 0.0)
    monkeypatch.setattr("command_server.relay.relay.CHECK_INTERVAL", 0.01)
    monkeypatch.setattr("command_server.relay.relay.POLL_INTERVAL", 0.01)
    async with feed.relay(database_url, own_nats.url) as relay:
        async with writer.begin() as transaction:
            await writer.append(transaction, "held", "held")
            for _ in range(30):
                await writer.commit("x", "y")
                await asyncio.sleep(0.01)
            await writer.wait_until_published()
        await writer.commit("held", "x")
        await writer.wait_until_published()
        events = await feed.assert_whole(relay.connection, writer)
    assert [event.position for event in events.values()] == [*range(3, 63), 1, 2, 63, 64]


async def test_a_notification_spares_the_wait_for_the_next_poll(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.POLL_INTERVAL", 60.0)
    await writer.commit("x")
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.wait_until_published()
        for _ in range(20):
            await writer.commit("x")
            await relay.connection.client.publish(WAKE_SUBJECT)
            await writer.wait_until_published()


async def test_it_confirms_that_all_earlier_events_are_published(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.POLL_INTERVAL", 60.0)
    gate = asyncio.Event()
    gate.set()

    class GatedPublisher:
        def __init__(self, publisher: Publisher) -> None:
            self._publisher = publisher

        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            await gate.wait()
            return await self._publisher.publish(epoch, events, after)

    async with feed.relay(database_url, own_nats.url, GatedPublisher) as relay:
        clock = PublicationClock(relay.connection)
        asking = asyncio.create_task(clock.run())
        await until(lambda: clock.latest is not None)
        gate.clear()
        await writer.commit(*[str(n % 50) for n in range(2_500)])
        committed_at = monotonic()
        await asyncio.sleep(1)  # for requests that must stay without a reply
        assert clock.latest is not None
        assert clock.latest.asked_at < committed_at
        gate.set()
        await until(lambda: clock.latest is not None and clock.latest.asked_at > committed_at)
        identity = await feed.read_identity(relay.connection)
        assert (clock.latest.epoch, clock.latest.sequence) == (identity.epoch, 2_500)
        asking.cancel()


async def test_a_forged_confirmation_is_not_believed(connection: Connection) -> None:
    forgeries = [b"epoch/999", FEED_REPLIES.sign(b"epoch/999", "_INBOX.other").encode()]
    asked = 0

    async def forge(request: Msg) -> None:
        nonlocal asked
        await request.respond(forgeries[asked % 2])
        asked += 1

    await connection.client.subscribe(PUBLISHED_SUBJECT, cb=forge)
    clock = PublicationClock(connection)
    asking = asyncio.create_task(clock.run())
    await until(lambda: asked > 2)
    assert clock.latest is None
    asking.cancel()


async def is_confirmed(connection: Connection) -> bool:
    """Return whether the relay replies to a reader's request."""
    try:
        return bool((await connection.client.request(PUBLISHED_SUBJECT, timeout=1)).data)
    except UNREACHABLE:
        return False


async def test_it_receives_requests_after_its_client_was_closed(
    database_url: str, own_nats: Nats, observer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A check while the client is closed would fail, and the relay recover.
    monkeypatch.setattr("command_server.relay.relay.CHECK_INTERVAL", 60.0)

    async with feed.relay(database_url, own_nats.url) as relay:
        await until(partial(is_confirmed, observer))
        await relay.connection.client.close()  # as it does by itself after some errors of the server
        assert not await is_confirmed(observer)
        await until(partial(is_confirmed, observer), 10)


async def test_it_goes_on_after_its_client_has_reconnected(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_server.relay.relay.CHECK_INTERVAL", 60.0)
    async with feed.relay(database_url, own_nats.url) as relay:
        connection = relay.connection
        await writer.commit("a")
        await writer.wait_until_published()
        with own_lines() as lines:
            for session in (2, 3):
                await connection._client._process_op_err(OSError("connection reset"))
                await until(lambda session=session: connection.sessions == session)  # type: ignore[misc]
                await until(partial(is_confirmed, connection))
                await writer.commit("b")
                await writer.wait_until_published()
            assert connection.clients == 1
        # What was in flight on the connection may be lost, and the relay recovers; no client was replaced.
        assert not [line for line in lines.of("Relay failed; restarting") if "replaced" in line["error"]]


async def test_only_marked_rows_are_deleted_after_their_retention(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_maintenance, "PRUNE_LIMIT", 2)
    await writer.commit(*"abcdefg")
    async with feed.relay(database_url, own_nats.url) as relay:
        await writer.wait_until_published()
        await relay.stop()
        await writer.query("UPDATE outbox SET published_at = now() - interval '1 hour' WHERE position < 6")
        await writer.commit("a")
        pending = outbox_maintenance.PendingEvents(relay.outbox)
        counting = asyncio.create_task(pending.run())
        await until(lambda: pending.number == 1)
        await cancel_and_wait(counting)
        maintenance = asyncio.create_task(outbox_maintenance.prune_outbox(relay.outbox, 1800))

        async def is_pruned() -> bool:
            return len(await writer.query("SELECT position FROM outbox")) == 3

        await until(is_pruned)
        maintenance.cancel()
        await asyncio.wait({maintenance})
    assert [row[0] for row in await writer.query("SELECT position FROM outbox ORDER BY 1")] == [6, 7, 8]


async def test_every_event_is_logged_and_traced_after_its_acknowledgement(
    database_url: str, own_nats: Nats, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider, lines = InMemorySpanExporter(), TracerProvider(), io.BytesIO()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr("command_server.relay.observer.log", logs.get_logger("relay"))
    logs.configure(file=lines)
    trace = "0af7651916cd43dd8448eb211c80319c"
    sampled, unsampled = f"00-{trace}-b7ad6b7169203331-01", f"00-{trace}-b7ad6b7169203331-00"
    async with feed.relay(database_url, own_nats.url, ObservedPublisher):
        await writer.commit("x", metadata=json.dumps({"correlation_id": "c-1", "traceparent": sampled}))
        await writer.commit("y", metadata=json.dumps({"correlation_id": "c-2", "traceparent": unsampled}))
        await writer.wait_until_published()
    logs.flush()
    entries = [json.loads(line) for line in lines.getvalue().splitlines()]
    published = [entry for entry in entries if entry["message"] == "Event published"]
    (recorded_at,) = (await writer.query("SELECT recorded_at FROM events WHERE position = 1"))[0]
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
    assert [entry["eventId"] for entry in published] == ["a.b.x@1", "a.b.y@1"]
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind.name, f"{span.context.trace_id:032x}") == (
        "publish DIPTYCH",
        "PRODUCER",
        trace,
    )


async def test_a_read_of_the_outbox_ends_at_a_number_of_bytes(writer: Writer) -> None:
    for number in range(20):
        await writer.commit(f"{number}", data=b"x" * 2**20)
    outbox = Outbox(writer.engine)
    async with outbox:
        events, is_full = await outbox.read_pending(0, 1_000)
        assert ([event.position for event in events], is_full) == (list(range(1, 17)), True)
        rest, is_full = await outbox.read_pending(events[-1].position, 1_000)
        assert ([event.position for event in rest], is_full) == ([17, 18, 19, 20], False)
        few, is_full = await outbox.read_pending(0, 3)
        assert ([event.position for event in few], is_full) == ([1, 2, 3], True)
        assert await outbox.read_history(0, 1_000) == (16, []), "all are pending"
        assert await outbox.read_history(16, 1_000) == (20, [])


async def test_the_statement_that_marks_returns_what_else_is_pending(writer: Writer) -> None:
    async with Outbox(writer.engine) as outbox:
        state = await outbox.begin_epoch(await outbox.read_state(), str(uuid4()))
        async with writer.begin() as late:
            await writer.append(late, "late")  # position 1
            await writer.commit(*[f"{number}" for number in range(9)])
            events, is_full = await outbox.read_pending(0, 5)
            assert ([event.position for event in events], is_full) == ([2, 3, 4, 5, 6], True)
            state, events, is_full = await outbox.mark_and_read(state, [2, 3, 4, 5, 6], 5, 0, 5)
            assert ([event.position for event in events], is_full, state.sequence) == (
                [7, 8, 9, 10],
                False,
                5,
            )
            await late.commit()
        # Marked in another order than that of their positions, as after a late commit.
        state, events, is_full = await outbox.mark_and_read(state, [9, 7], 7, 0, 2)
        assert ([event.position for event in events], is_full) == ([1, 8], True)
        state, events, is_full = await outbox.mark_and_read(state, [1, 8], 9, 9, 5)
        assert ([event.position for event in events], is_full) == ([10], False)
        assert await outbox.mark_and_read(state, [10], 10, 0, 5) == (replace(state, sequence=10), [], False)
        assert await outbox.read_state() == replace(state, sequence=10)
    marked = await writer.query("SELECT position, sequence FROM outbox ORDER BY sequence")
    assert [tuple(row) for row in marked] == list(
        zip([2, 3, 4, 5, 6, 9, 7, 1, 8, 10], range(1, 11), strict=True)
    )
