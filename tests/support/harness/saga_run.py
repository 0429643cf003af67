"""An engine on the real PostgreSQL whose events the test delivers, and events of the toy ledger."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from sqlalchemy import text

from contracts import incarnations, streams
from contracts.envelope import RecordedEvent
from process_manager.deadlines.deadlines import Deadlines
from process_manager.dispatch.preceding_inputs import PrecedingInputs
from process_manager.engine import Engine
from process_manager.groups.delivery import Progress
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, DueStep, Feed
from process_manager.postgres.store import SagaStore
from process_manager.queries.awaited_events import StreamEnd
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.freshness import Freshness
from process_manager.queries.saga_queries import SagaQueries
from process_manager.queries.saga_reader import SagaReader
from process_manager.saga import Saga
from runtime.codec import message_class
from runtime.grpc.server import Service
from runtime.jetstream import Publication
from tests.support.harness.freshness import make_waits
from tests.support.harness.keys import TOKENS
from tests.support.ledger.stubs import events, events_v2

ALL_PARTITIONS = range(streams.PARTITIONS)
SLICE = 2
"""Events of a parked stream that are delivered in one transaction."""
INCARNATION = incarnations.create()
TRACEPARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def written(
    cheque_id: str, amount: int = 5, version: int = 1, *, account: str = "a", at: datetime | None = None
) -> RecordedEvent:
    message = events_v2.ChequeWritten(cheque_id=cheque_id, account_id=account, amount=amount, writer="ada")
    return recorded_as(f"ledger.cheque.{cheque_id}", message, version, at)


def cashed(cheque_id: str, version: int = 2, *, at: datetime | None = None) -> RecordedEvent:
    return recorded_as(f"ledger.cheque.{cheque_id}", events.ChequeCashed(cheque_id=cheque_id), version, at)


def paid(account: str, version: int = 1, amount: int = 1, *, at: datetime | None = None) -> RecordedEvent:
    message = events.Paid(account_id=account, amount=amount)
    return recorded_as(f"ledger.account.{account}", message, version, at)


def recorded_as(stream: str, message: Any, version: int, at: datetime | None = None) -> RecordedEvent:
    return RecordedEvent(
        stream,
        version,
        message.DESCRIPTOR.full_name,
        message.SerializeToString(),
        at or datetime.now(UTC),
        version,
        {"correlation_id": "c-1", "traceparent": TRACEPARENT},
    )


def create_freshness(run: "SagaRun", incarnation: str = INCARNATION) -> Freshness:
    """Return a Freshness on the run's events; the sequence of each event is its number in the run."""

    async def read_incarnation() -> str:
        return incarnation

    async def read_stream_end(stream: str) -> StreamEnd | None:
        for number, event in reversed(list(enumerate(run.stream_events, 1))):
            if event.stream == stream:
                return StreamEnd("epoch", number, event.version)
        return None

    return Freshness(TOKENS, make_waits(), FeedReader(run.store.engine), read_incarnation, read_stream_end)


def confirm_now() -> Publication:
    """Return a relay's confirmation that everything committed until now is in the stream."""
    return Publication(monotonic(), "epoch", 0)


class Call:
    """The context of a call without a deadline."""

    def time_remaining(self) -> None:
        return None


async def call(service: Service, method: str, **request: Any) -> Any:
    """Call a method of a service in this process, and return the response."""
    message = message_class(service.descriptor.methods_by_name[method].input_type)
    context: Any = Call()
    return await service.handlers[method](message(**request), context)


async def list_all(service: Service, method: str, field: str, **request: Any) -> list[Any]:
    """Return the entries on all pages, two on each."""
    pages = await list_pages(service, method, page_size=2, **request)
    return [entry for page in pages for entry in getattr(page, field)]


async def list_pages(service: Service, method: str, **request: Any) -> list[Any]:
    """Return the responses with all pages."""
    pages: list[Any] = []
    while not pages or pages[-1].next_page_token:
        token = pages[-1].next_page_token if pages else ""
        pages.append(await call(service, method, page_token=token, **request))
    return pages


class SagaRun:
    """An engine with a store, and the event stream that it reads.

    Args:
        store: stores the instances.
        sagas: the sagas; events are delivered to all that subscribe to their streams.
    """

    def __init__(self, store: SagaStore, *sagas: Saga[Any]) -> None:
        self.store, self.sagas = store, sagas
        self.stream_events: list[RecordedEvent] = []
        self.engine = Engine(store, sagas, self.read_stream)
        self.deadlines = Deadlines(self.engine, store)
        self.reader = SagaReader(store.engine, sagas)
        self.checkpoints: dict[Feed, Checkpoint] = {}
        self.queries = SagaQueries(sagas, self.reader, create_freshness(self), TOKENS)

    async def read_stream(self, stream: str, version: int) -> Sequence[RecordedEvent]:
        own_events = (event for event in self.stream_events if event.stream == stream)
        return [event for event in own_events if event.version >= version][:SLICE]

    async def deliver(self, *events: RecordedEvent) -> None:
        """Record events of one stream type and deliver them, as if all were in partition 0."""
        self.stream_events += events
        await self.redeliver(*events)

    async def redeliver(self, *events: RecordedEvent) -> None:
        for saga in self.sagas:
            for subscription in saga.subscribes_to:
                own = [e for e in events if streams.stream_type(e.stream) == subscription.stream_type]
                if own:
                    await self._deliver(Feed(saga.name, subscription.stream_type, 0), own)

    async def _deliver(self, feed: Feed, events: Sequence[RecordedEvent]) -> None:
        old = self.checkpoints.get(feed, NO_CHECKPOINT)
        new = ("epoch", old[1] + 1)
        deliver = (self.deadlines if feed.saga in self.deadlines.sagas else self.engine).deliver_events
        parked = await deliver(feed, events, old, new)
        self.checkpoints[feed] = new
        await self.replay(feed, parked)

    async def replay(self, feed: Feed, parked: Iterable[str] = ()) -> None:
        """Deliver these parked streams, or all of a feed, as far as they can be delivered."""
        for stream in parked or await self.store.read_parked(feed):
            while await self.engine.deliver_parked(feed, stream) is Progress.MORE:
                pass

    async def read_sagas(self) -> dict[str, Any]:
        """Return the rows of all instances by id."""
        return {row.id: row for row in await self.query("SELECT * FROM sagas")}

    def create_preceding(self) -> PrecedingInputs:
        """Return what timers wait for: of events, those of an instance's own stream. No target is silent."""
        return PrecedingInputs(self.engine.sagas, self.store, self._read_ends, tuple, confirm_now)

    async def _read_ends(self, subjects: Collection[str]) -> Mapping[str, StreamEnd | None]:
        versions = {streams.subject(event.stream): event.version for event in self.stream_events}
        return {
            subject: StreamEnd("epoch", 0, versions[subject]) if subject in versions else None
            for subject in subjects
        }

    async def read_due_steps(self) -> list[DueStep]:
        return await self.store.read_due_steps([saga.name for saga in self.sagas], ALL_PARTITIONS, {})

    async def query(self, sql: str) -> Sequence[Any]:
        async with self.store.engine.begin() as connection:
            result = await connection.execute(text(sql))
            return result.all() if result.returns_rows else []

    async def expire_timers(self) -> None:
        await self.query("UPDATE saga_timers SET due_at = now()")
