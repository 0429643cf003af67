"""The statement that writes the deadlines of feeds that arrive together, with their checkpoints."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts.envelope import RecordedEvent
from process_manager.deadlines import statements
from process_manager.deadlines.changes import DeadlineChanges, DeadlineSaga, Key, add_streams
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import Checkpoint, Feed
from process_manager.postgres.group_store import LOCKED, is_outage
from process_manager.postgres.statement_session import StatementSession

MAX_FEEDS = 32
"""Feeds whose events share a statement."""


class DeadlinesNotWritten(Exception):
    """The events were not delivered, or perhaps they were; the feed starts again at its checkpoint."""


@dataclass(frozen=True)
class Delivery:
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


class SharedStatement:
    """Writes deliveries.

    Args:
        sagas: the sagas with deadlines by name.
        session: the connection of the deadlines.
        on_written: called with the earliest of the deadlines that were added.
    """

    def __init__(
        self,
        sagas: Mapping[str, DeadlineSaga],
        session: StatementSession,
        on_written: Callable[[datetime], None],
    ) -> None:
        self._sagas = sagas
        self._session = session
        self._on_written = on_written
        self._lock = asyncio.Lock()
        self._waiting: list[Delivery] = []

    async def share(self, delivery: Delivery) -> bool:
        """Write the changes of a delivery together with those that wait; return whether they are written."""
        self._waiting.append(delivery)
        try:
            await asyncio.sleep(0)  # until all feeds that arrive together are waiting
            async with self._lock:
                if delivery in self._waiting:
                    group, self._waiting = self._waiting[:MAX_FEEDS], self._waiting[MAX_FEEDS:]
                    await self._write_group(group)
            return await delivery.written
        finally:
            if delivery in self._waiting:
                self._waiting.remove(delivery)

    async def _write_group(self, group: Sequence[Delivery]) -> None:
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

    async def _write_together(self, group: Sequence[Delivery]) -> bool:
        try:
            return await self.write(group)
        except Exception as error:
            if is_outage(error) and not isinstance(error, LOCKED):
                raise
            return False  # PostgreSQL refuses a row of one of them, or another session has inserted it

    async def _write_alone(self, delivery: Delivery) -> None:
        try:
            delivery.written.set_result(await self.write([delivery]))
        except LOCKED as error:
            delivery.fail(error)
        except Exception as error:
            if is_outage(error):
                raise
            # An event brought what PostgreSQL refuses, and only those of new deadlines bring more than ids.
            delivery.changes.mark_begun_unclear()
            delivery.written.set_result(False)

    async def write(
        self, group: Sequence[Delivery], without: Collection[Key] = (), *, advances: bool = True
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
        rows = await self._session.fetch(
            statements.WRITE,
            *to_columns(checkpoints, 7),
            *to_columns(sorted(ended), 3),  # all managers lock in one order
            *to_columns(changes.over, 2),
            *to_columns(add_streams(self._sagas, changes.keys), 3),
            *to_columns(begun, 6),
        )
        if rows[0]["held"] and changes.begun:
            self._on_written(min(each.due_at for each in changes.begun))
        return bool(rows[0]["held"])
