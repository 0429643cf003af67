"""Keeps the deadlines of sagas whose instances begin only then (`saga.Deadline`).

How it works:

- An event that sets a deadline adds a row, and the event that ends it removes the row, together with the
  feed's checkpoint in one statement. Feeds that arrive while a statement runs share the next one.
- A statement that finds anything unexpected changes nothing. Its streams are then read, and those with an
  instance or with a gap go the ordinary way of sagas (`Engine.deliver_events`) with the checkpoint; a
  deadline that stood for one of them becomes an instance first. If it cannot begin one, it stays, and the
  instance begins with the first event of its stream, which is read again.
- So do streams whose rows PostgreSQL refuses: there the instance alone is blocked, and the feed goes on.
- No statement waits for a row that another session has locked: it counts as changed.
- A deadline that is due becomes an instance with an ordinary timer (`begin_instances`), which then fires.
- A firing and an event that ends the deadline both lock the row: whichever is first removes it, and the other
  one sees that. So an instance misses no event.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.deadlines import statements
from process_manager.deadlines.changes import DeadlineChanges, DeadlineSaga, Key, find_changes
from process_manager.engine import Engine
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, DueTimer, Feed, list_instances
from process_manager.postgres.group_store import LOCKED, is_outage
from process_manager.postgres.statement_session import StatementSession
from process_manager.postgres.store import SagaStore
from process_manager.postgres.stored_values import to_json
from runtime.process import logs

MAX_FEEDS = 32
"""Feeds whose events share a statement."""
MAX_ATTEMPTS = 5
"""Attempts at the events of a feed whose rows change meanwhile."""
RETRY_INTERVAL = 10.0
"""Seconds before a deadline or timer is tried again after a failure."""

log = logs.get_logger(__name__)


class DeadlinesNotWritten(Exception):
    """The events were not delivered, or perhaps they were; the feed starts again at its checkpoint."""


@dataclass(frozen=True)
class _Delivery:
    """Events of a feed between two checkpoints."""

    feed: Feed
    events: Sequence[RecordedEvent]
    changes: DeadlineChanges
    old: Checkpoint
    new: Checkpoint
    written: "asyncio.Future[bool]"

    def fail(self, error: BaseException) -> None:
        if not self.written.done():
            self.written.set_exception(DeadlinesNotWritten(repr(error)))
            self.written.exception()  # nobody may wait for it any more


class Deadlines:
    """The deadlines of all sagas of this process.

    Args:
        engine: delivers what is not a plain deadline.
        store: the database.
    """

    def __init__(self, engine: Engine, store: SagaStore) -> None:
        self._engine = engine
        self.sagas: Mapping[str, DeadlineSaga] = {
            name: DeadlineSaga(saga, saga.deadline)
            for name, saga in engine.sagas.items()
            if saga.deadline is not None
        }
        """The sagas with deadlines by name."""
        self.on_deadlines: Callable[[datetime], None] = lambda _: None
        """Called with the earliest of the deadlines that events have set."""
        self._session = StatementSession(store.reserved)
        self._group_lock = asyncio.Lock()
        self._waiting: list[_Delivery] = []

    async def close(self) -> None:
        await self._session.close()

    async def deliver_events(
        self, feed: Feed, events: Sequence[RecordedEvent], old: Checkpoint, new: Checkpoint
    ) -> Collection[str]:
        """Deliver a feed's events between two checkpoints, as `Engine.deliver_events` does.

        Raises:
            CheckpointConflict: another manager has delivered them.
        """
        if old == NO_CHECKPOINT:
            old = (new[0], 0)  # before all messages, so that each statement has a row to compare
            await self._engine.deliver_events(feed, (), NO_CHECKPOINT, old)
        saga = self.sagas[feed.saga]
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        delivery = _Delivery(feed, events, find_changes(saga, events), old, new, written)
        if delivery.changes.unclear or not await self._share_statement(delivery):
            return await self._deliver_apart(delivery)
        self._engine.after_delivery()
        return ()

    async def _share_statement(self, delivery: _Delivery) -> bool:
        """Write the changes of a delivery together with those that wait; return whether they are written."""
        self._waiting.append(delivery)
        try:
            await asyncio.sleep(0)  # until all feeds that arrive together are waiting
            async with self._group_lock:
                if delivery in self._waiting:
                    group, self._waiting = self._waiting[:MAX_FEEDS], self._waiting[MAX_FEEDS:]
                    await self._write_group(group)
            return await delivery.written
        finally:
            if delivery in self._waiting:
                self._waiting.remove(delivery)

    async def _write_group(self, group: Sequence[_Delivery]) -> None:
        """Write the changes of deliveries: together if that is possible, otherwise each on its own."""
        try:
            together = len(group) > 1 and await self._write_together(group)
            for each in group:
                if together:
                    each.written.set_result(True)
                else:
                    await self._write_alone(each)
        except BaseException as error:
            for each in group:
                each.fail(error)
            raise

    async def _write_together(self, group: Sequence[_Delivery]) -> bool:
        try:
            return await self._write(group)
        except Exception as error:
            if is_outage(error) and not isinstance(error, LOCKED):
                raise
            return False  # PostgreSQL refuses a row of one of them, or another session has inserted it

    async def _write_alone(self, delivery: _Delivery) -> None:
        try:
            delivery.written.set_result(await self._write([delivery]))
        except LOCKED as error:
            delivery.fail(error)
        except Exception as error:
            if is_outage(error):
                raise
            # An event brought what PostgreSQL refuses, and only those of new deadlines bring more than ids.
            delivery.changes.distrust_begun()
            delivery.written.set_result(False)

    async def _write(
        self, group: Sequence[_Delivery], without: Collection[Key] = (), *, advances: bool = True
    ) -> bool:
        """Write the changes of deliveries and their checkpoints; return False if nothing was written.

        Args:
            group: the deliveries.
            without: streams whose changes are left out.
            advances: whether the checkpoints are advanced, or only compared.
        """
        changes = DeadlineChanges()
        for each in group:
            changes.add(each.changes, without)
        checkpoints = [
            (
                *(each.feed.saga, each.feed.stream_type, each.feed.partition),
                *(*each.old, *(each.new if advances else each.old)),
            )
            for each in group
        ]
        ended = [(*key, True) for key in changes.ended] + [(*key, False) for key in changes.passed]
        begun = [
            (each.saga, each.id, each.partition, each.due_at, each.correlation_id, each.traceparent)
            for each in changes.begun
        ]
        rows = await self._fetch(
            statements.WRITE,
            *to_columns(checkpoints, 7),
            *to_columns(sorted(ended), 3),  # all managers lock in one order
            *to_columns(changes.over, 2),
            *to_columns(map(self._add_stream, changes.keys), 3),
            *to_columns(begun, 6),
        )
        if rows[0]["held"] and changes.begun:
            self.on_deadlines(min(each.due_at for each in changes.begun))
        return bool(rows[0]["held"])

    async def _deliver_apart(self, delivery: _Delivery) -> Collection[str]:
        """Deliver the events of streams with an instance or a gap the ordinary way, and the others here."""
        feed, old = delivery.feed, delivery.old
        for _ in range(MAX_ATTEMPTS):
            await self._engine.deliver_events(feed, (), old, old)  # fails if another manager was faster
            ordinary = await self._find_ordinary(delivery.changes)
            if ordinary is not None and await self._write([delivery], ordinary, advances=False):
                ids = {id_ for _, id_ in ordinary}
                events = [each for each in delivery.events if streams.aggregate_id(each.stream) in ids]
                return await self._engine.deliver_events(feed, events, old, delivery.new)
        raise DeadlinesNotWritten(f"the deadlines of {feed} changed again and again")

    async def _find_ordinary(self, changes: DeadlineChanges) -> set[Key] | None:
        """Return the streams that go the ordinary way, after their deadlines became instances.

        None if these have changed meanwhile.
        """
        keys = [*changes.keys, *changes.unclear]
        rows = await self._fetch(statements.READ, *to_columns(map(self._add_stream, keys), 3))
        due_at = {(row["saga"], row["id"]): row["due_at"] for row in rows}
        ordinary = {
            *((row["saga"], row["id"]) for row in rows if row["has_instance"]),
            *changes.unclear,
            *(key for key in changes.ended if due_at[key] is None),
            *(key for key in changes.over if due_at[key] is not None),
        }
        deadlines = [self._to_timer(*key, due_at[key]) for key in ordinary if due_at[key] is not None]
        begun, failed = await self._begin_or_fail(deadlines)
        return ordinary if len(begun) + len(failed) == len(deadlines) else None

    async def begin_instances(self, due: Collection[DueTimer]) -> list[DueTimer]:
        """Turn deadlines that are due into instances with timers; return those that were still there.

        One whose instance cannot begin, perhaps because of a bug in its saga, is postponed.
        """
        keys, failed = await self._begin_or_fail(due)
        await self.postpone(dict.fromkeys(failed, RETRY_INTERVAL))
        return [timer for timer in due if (timer.saga, timer.id) in keys]

    async def _begin_or_fail(self, due: Collection[DueTimer]) -> tuple[set[Key], Collection[DueTimer]]:
        """Turn deadlines into instances; return those that began, and those that cannot."""
        rows, failed = dict[DueTimer, Sequence[Any]](), dict[DueTimer, Exception]()
        for timer in due:
            try:
                rows[timer] = self._to_instance(timer)
            except Exception as error:
                failed[timer] = error
        keys = await self._begin_rows(rows, failed)
        if failed:
            await self._fetch(statements.REMOVE_REPLACED, *to_columns(((t.saga, t.id) for t in failed), 2))
        for timer, reason in failed.items():
            log.error("Deadline failed", saga=timer.saga, sagaId=timer.id, error=repr(reason))
        return keys, failed.keys()

    async def _begin_rows(
        self, rows: Mapping[DueTimer, Sequence[Any]], failed: dict[DueTimer, Exception]
    ) -> set[Key]:
        """Write instances: together if that is possible, otherwise each on its own; return their keys."""
        if not rows:
            return set()
        try:
            begun = await self._fetch(statements.BEGIN_INSTANCES, *to_columns(rows.values(), 7))
        except Exception as error:
            if is_outage(error):
                raise
            if len(rows) == 1:  # PostgreSQL refuses it
                failed.update(dict.fromkeys(rows, error))
                return set()
            return {key for each in rows.items() for key in await self._begin_rows(dict([each]), failed)}
        return {(row["saga"], row["id"]) for row in begun}

    def _to_instance(self, timer: DueTimer) -> Sequence[Any]:
        """Return the columns of a deadline's instance: key, deadline, timer, state and status."""
        saga = self.sagas[timer.saga]
        state = saga.deadline.begin(timer.id, timer.due_at)
        status = saga.saga.describe_status(state)
        key = timer.saga, timer.id, timer.due_at, timer.name
        return *key, to_json(state), status.state, status.waiting_for

    async def read_due(
        self, partitions: Collection[int], limit: int, known: Collection[DueTimer] = ()
    ) -> list[DueTimer]:
        """Return the deadlines that have passed, but none of the known ones; the longest passed first."""
        if not self.sagas:
            return []
        parameters = list(self.sagas), list(partitions), limit, list_instances(known)
        return [self._to_timer(*row) for row in await self._fetch(statements.READ_DUE, *parameters)]

    async def read_next(
        self, partitions: Collection[int], known: Collection[DueTimer] = ()
    ) -> tuple[datetime, datetime | None]:
        """Return PostgreSQL's time, and when the next timer or deadline is due; None if there is none.

        Args:
            partitions: of the instances.
            known: timers and deadlines to pass over.
        """
        parameters = list(self._engine.sagas), list(partitions), list_instances(known)
        rows = await self._fetch(statements.READ_NEXT, *parameters)
        return rows[0]["now"], rows[0]["next_at"]

    async def postpone(self, pauses: Mapping[DueTimer, float]) -> None:
        """Read deadlines that have passed again after these seconds."""
        rows = sorted((timer.saga, timer.id, timer.due_at, pause) for timer, pause in pauses.items())
        if rows:
            await self._fetch(statements.POSTPONE, *to_columns(rows, 4))

    def _to_timer(self, saga: str, id_: str, due_at: Any) -> DueTimer:
        return DueTimer(saga, id_, self.sagas[saga].deadline.timer, due_at)

    def _add_stream(self, key: Key) -> tuple[str, str, str]:
        saga, id_ = key
        return saga, id_, streams.stream_name(self.sagas[saga].saga.own_type, id_)

    async def _fetch(self, statement: str, *parameters: Any) -> Any:
        return await self._session.fetch(statement, *parameters)
