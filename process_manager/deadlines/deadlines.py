"""Keeps the deadlines of sagas whose instances begin only then (`saga.Deadline`).

How it works:

- An event that sets a deadline adds a row, and the event that ends it removes the row, together with the
  feed's checkpoint in one statement. Feeds that arrive while it runs share the next one (`SharedStatement`).
- A statement that finds anything unexpected changes nothing. Its streams are then read, and those with an
  instance or with a gap go the ordinary way of sagas (`Engine.deliver_events`) with the checkpoint; a
  deadline that stood for one of them becomes an instance first. If it cannot begin one, it stays, and the
  instance begins with the first event of its stream, which is read again.
- So do streams whose rows PostgreSQL refuses: there the instance alone is blocked, and the feed goes on.
- No statement waits for a row that another session has locked: it counts as changed.
- A deadline that is due becomes an instance with an ordinary timer (`DeadlineInstances`), which then fires.
- A firing and an event that ends the deadline both lock the row: whichever is first removes it, and the other
  one sees that. So an instance misses no event.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.deadlines import statements
from process_manager.deadlines.changes import DeadlineChanges, DeadlineSaga, Key, add_streams, find_changes
from process_manager.deadlines.instances import DeadlineInstances
from process_manager.deadlines.shared_statement import DeadlinesNotWritten, Delivery, SharedStatement
from process_manager.engine import Engine
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, DueTimer, Feed, list_instances
from process_manager.postgres.statement_session import StatementSession
from process_manager.postgres.store import SagaStore

MAX_ATTEMPTS = 5
"""Attempts at the events of a feed whose rows change meanwhile."""
RETRY_INTERVAL = 10.0
"""Seconds before a deadline or timer is tried again after a failure."""


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
        self._shared = SharedStatement(self.sagas, self._session, lambda at: self.on_deadlines(at))
        self._instances = DeadlineInstances(self.sagas, self._session)

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
        delivery = Delivery(feed, events, find_changes(saga, events), old, new, written)
        if delivery.changes.unclear or not await self._shared.share(delivery):
            return await self._deliver_apart(delivery)
        self._engine.after_delivery()
        return ()

    async def _deliver_apart(self, delivery: Delivery) -> Collection[str]:
        """Deliver the events of streams with an instance or a gap the ordinary way, and the others here."""
        feed, old = delivery.feed, delivery.old
        for _ in range(MAX_ATTEMPTS):
            await self._engine.deliver_events(feed, (), old, old)  # fails if another manager was faster
            ordinary = await self._find_ordinary(delivery.changes)
            if ordinary is not None and await self._shared.write([delivery], ordinary, advances=False):
                ids = {id_ for _, id_ in ordinary}
                events = [each for each in delivery.events if streams.aggregate_id(each.stream) in ids]
                return await self._engine.deliver_events(feed, events, old, delivery.new)
        raise DeadlinesNotWritten(f"the deadlines of {feed} changed again and again")

    async def _find_ordinary(self, changes: DeadlineChanges) -> set[Key] | None:
        """Return the streams that go the ordinary way, after their deadlines became instances.

        None if these have changed meanwhile.
        """
        keys = [*changes.keys, *changes.unclear]
        rows = await self._session.fetch(statements.READ, *to_columns(add_streams(self.sagas, keys), 3))
        due_at = {(row["saga"], row["id"]): row["due_at"] for row in rows}
        ordinary = {
            *((row["saga"], row["id"]) for row in rows if row["has_instance"]),
            *changes.unclear,
            *(key for key in changes.ended if due_at[key] is None),
            *(key for key in changes.over if due_at[key] is not None),
        }
        deadlines = [self._to_timer(*key, due_at[key]) for key in ordinary if due_at[key] is not None]
        begun, failed = await self._instances.begin(deadlines)
        return ordinary if len(begun) + len(failed) == len(deadlines) else None

    async def begin_instances(self, due: Collection[DueTimer]) -> list[DueTimer]:
        """Turn deadlines that are due into instances with timers; return those that were still there.

        One whose instance cannot begin, perhaps because of a bug in its saga, is postponed.
        """
        keys, failed = await self._instances.begin(due)
        await self.postpone(dict.fromkeys(failed, RETRY_INTERVAL))
        return [timer for timer in due if (timer.saga, timer.id) in keys]

    async def read_due(
        self, partitions: Collection[int], limit: int, known: Collection[DueTimer] = ()
    ) -> list[DueTimer]:
        """Return the deadlines that have passed, but none of the known ones; the longest passed first."""
        if not self.sagas:
            return []
        parameters = list(self.sagas), list(partitions), limit, list_instances(known)
        return [self._to_timer(*row) for row in await self._session.fetch(statements.READ_DUE, *parameters)]

    async def read_next(
        self, partitions: Collection[int], known: Collection[DueTimer] = ()
    ) -> tuple[datetime, datetime | None]:
        """Return PostgreSQL's time, and when the next timer or deadline is due; None if there is none.

        Args:
            partitions: of the instances.
            known: timers and deadlines to pass over.
        """
        parameters = list(self._engine.sagas), list(partitions), list_instances(known)
        rows = await self._session.fetch(statements.READ_NEXT, *parameters)
        return rows[0]["now"], rows[0]["next_at"]

    async def postpone(self, pauses: Mapping[DueTimer, float]) -> set[DueTimer]:
        """Read passed deadlines again after these seconds; return those not locked or gone."""
        if not pauses:
            return set()
        rows = sorted((timer.saga, timer.id, timer.due_at, pause) for timer, pause in pauses.items())
        postponed = await self._session.fetch(statements.POSTPONE, *to_columns(rows, 4))
        return {self._to_timer(*row) for row in postponed}

    def _to_timer(self, saga: str, id_: str, due_at: Any) -> DueTimer:
        return DueTimer(saga, id_, self.sagas[saga].deadline.timer, due_at)
