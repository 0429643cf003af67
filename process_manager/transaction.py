"""One transaction on saga instances: lock them, record the input, write the reaction.

How it works:

- `lock` reads the instances' rows FOR UPDATE in the order of their ids, so that two managers with the same
  instances wait for each other and cannot deadlock. An id without a row yields a new instance. Feeds of two
  stream types may both create it, so `lock` first takes an advisory lock for each such id, also in one order,
  and before any row: the second transaction then finds the row that the first has created.
- The record of the input guards against a second delivery. `advance_checkpoint` compares and sets,
  `record_outcome` sets an outcome only where there is none, and `remove_timer` deletes exactly the timer
  that was read. A caller that sees a guard fail writes nothing.
- `write` upserts the instances' rows, inserts their new steps, and sets or cancels their timers.
- The timers of an instance that lacks an event are stopped: when it fails on one, when its row cannot be
  read, and while its own stream is parked. They are set again to fire later by as long as they were stopped.
- All times are the database's (`now`, read when the transaction begins), so managers' clocks do not matter.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from hashlib import blake2b
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from process_manager import rows, stopped_timers
from process_manager.due_work import (
    NO_CHECKPOINT,
    Checkpoint,
    CheckpointConflict,
    DueStep,
    DueTimer,
    Feed,
    matches_step,
    matches_timer,
)
from process_manager.instance import Instance
from process_manager.saga import Saga
from process_manager.schema import CHECKPOINTS, OPERATOR_ACTIONS, PARKED_STREAMS, SAGAS, STEPS, TIMERS

LOCK_NEW = text(
    """
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT n.key FROM unnest(CAST(:keys AS bigint[]), CAST(:ids AS text[])) AS n (key, id)
        WHERE NOT EXISTS (SELECT FROM sagas WHERE saga = :saga AND sagas.id = n.id)
        ORDER BY n.key OFFSET 0
    ) AS new
    """
)
"""OFFSET keeps the sort below the locks, so that all transactions lock in one order."""
SKIP_PARKED = text(
    """
    UPDATE saga_parked_streams AS p SET latest = greatest(p.latest, s.version)
    FROM unnest(CAST(:streams AS text[]), CAST(:versions AS bigint[])) AS s (stream, version)
    WHERE p.saga = :saga AND p.stream = s.stream RETURNING p.stream
    """
)


class Transaction:
    """One transaction, opened by `SagaStore.begin`.

    Args:
        connection: runs the transaction.
        now: the database's time.
    """

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    async def advance_checkpoint(self, feed: Feed, old: Checkpoint, new: Checkpoint) -> None:
        """Advance a feed's checkpoint.

        Raises:
            CheckpointConflict: the checkpoint is not at `old`.
        """
        row = {**asdict(feed), "epoch": new[0], "sequence": new[1]}
        if old == NO_CHECKPOINT:
            statement = insert(CHECKPOINTS).values(row).on_conflict_do_nothing()
        else:
            statement = (
                update(CHECKPOINTS)  # type: ignore[assignment]
                .where(*(CHECKPOINTS.c[name] == value for name, value in asdict(feed).items()))
                .where(CHECKPOINTS.c.epoch == old[0], CHECKPOINTS.c.sequence == old[1])
                .values(row)
            )
        if (await self._connection.execute(statement)).rowcount != 1:
            raise CheckpointConflict(f"another manager has advanced {feed}")

    async def lock(self, saga: Saga[Any], ids: Collection[str]) -> dict[str, Instance]:
        """Return the instances of these ids, locked until the transaction ends; new ones where none exist."""
        if len(saga.subscribes_to) > 1:  # one feed's checkpoint already runs its transactions in turn
            await self._lock_new(saga.name, ids)
        saga_rows = await self._connection.execute(
            select(SAGAS)
            .where(SAGAS.c.saga == saga.name, SAGAS.c.id.in_(ids))
            .order_by(SAGAS.c.id)
            .with_for_update()
        )
        instances = {row.id: rows.from_row(saga, row) for row in saga_rows}
        step_rows = await self._connection.execute(
            select(STEPS.c.id, STEPS.c.step, func.max(STEPS.c.attempt).label("attempts"))
            .where(STEPS.c.saga == saga.name, STEPS.c.id.in_(list(instances)))
            .group_by(STEPS.c.id, STEPS.c.step)
        )
        for row in step_rows:
            instances[row.id].attempts[row.step] = row.attempts
        return {id_: instances.get(id_) or Instance(saga, id_, saga.initial) for id_ in ids}

    async def _lock_new(self, saga: str, ids: Collection[str]) -> None:
        """Lock the ids that have no row, so that only one transaction at a time creates their instances."""
        keys = {_compute_lock_key(saga, id_): id_ for id_ in ids}
        parameters = {"saga": saga, "keys": sorted(keys), "ids": [keys[key] for key in sorted(keys)]}
        await self._connection.execute(LOCK_NEW, parameters)

    async def record_outcome(self, step: DueStep, outcome: str) -> bool:
        """Record a step's outcome; return False if it has one."""
        statement = (
            update(STEPS)
            .where(matches_step(step), STEPS.c.outcome.is_(None))
            .values(outcome=outcome, answered_at=self.now, error=None, denied=False, tries=STEPS.c.tries + 1)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def remove_timer(self, timer: DueTimer) -> bool:
        """Remove a timer; return False if it was removed or set to another time."""
        return (await self._connection.execute(delete(TIMERS).where(matches_timer(timer)))).rowcount == 1

    async def record_action(self, instance: Instance, action: str, reason: str, operator: str) -> None:
        row = {
            **rows.to_key(instance),
            "action": action,
            "reason": reason,
            "operator": operator,
            "at": self.now,
        }
        await self._connection.execute(insert(OPERATOR_ACTIONS).values(row))

    async def skip_parked(self, feed: Feed, latest: Mapping[str, int]) -> set[str]:
        """Return the parked streams among these, and note the versions of their latest events, which wait."""
        parameters = {
            "saga": feed.saga,
            "streams": list(latest),
            "versions": list(latest.values()),
        }
        return {row.stream for row in await self._connection.execute(SKIP_PARKED, parameters)}

    async def lock_parked(self, feed: Feed, stream: str) -> tuple[int, int] | None:
        """Lock a parked stream; return the version of its first event that waits, and of the latest one.

        The latter is 0 if it is unknown: then all events of the stream wait. None if it is not parked.
        """
        columns = PARKED_STREAMS.c
        query = select(columns.version, columns.latest).where(_matches_stream(feed, stream))
        row = (await self._connection.execute(query.with_for_update())).one_or_none()
        return None if row is None else (row.version, row.latest)

    async def park(
        self, feed: Feed, failures: Mapping[str, tuple[int, str]], latest: Mapping[str, int]
    ) -> None:
        """Park streams.

        Args:
            feed: of the streams.
            failures: by stream, the version of the first event that waits, and the error.
            latest: by stream, the version of the latest event that waits; 0 for unknown.
        """
        await self._park(feed, failures, latest, ("version", "error"))

    async def park_behind(self, feed: Feed, behind: Mapping[str, int], latest: Mapping[str, int]) -> None:
        """Park streams that have to be read from these versions on; keep the versions of parked ones."""
        await self._park(feed, {stream: (version, "") for stream, version in behind.items()}, latest, ())

    async def _park(
        self,
        feed: Feed,
        first: Mapping[str, tuple[int, str]],
        latest: Mapping[str, int],
        changed: Sequence[str],
    ) -> None:
        if not first:
            return
        statement = insert(PARKED_STREAMS).values(
            [
                {
                    **asdict(feed),
                    "stream": stream,
                    "version": version,
                    "latest": latest[stream],
                    "error": error,
                    "since": self.now,
                }
                for stream, (version, error) in sorted(first.items())
            ]
        )
        changes: dict[str, Any] = {name: statement.excluded[name] for name in changed}
        changes["latest"] = func.greatest(PARKED_STREAMS.c.latest, statement.excluded.latest)
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["saga", "stream"], set_=changes)
        )

    async def advance_parked(self, feed: Feed, stream: str, version: int) -> None:
        """Record that the events of a parked stream wait from this version on."""
        await self._connection.execute(
            update(PARKED_STREAMS).where(_matches_stream(feed, stream)).values(version=version, error="")
        )

    async def unpark(self, feed: Feed, stream: str) -> None:
        await self._connection.execute(delete(PARKED_STREAMS).where(_matches_stream(feed, stream)))

    async def write(self, instances: Iterable[Instance]) -> None:
        """Write the instances with their new steps and timers; skip those that have received no input."""
        for instance in (existing := [instance for instance in instances if instance.exists]):
            if instance.unreadable:
                await self._mark_unreadable(instance)
                await self.stop_timers(instance.saga, [instance.id])
        begun = [instance for instance in existing if not instance.unreadable]
        if not begun:
            return
        statement = insert(SAGAS).values([rows.to_row(instance, self.now) for instance in begun])
        new: Any = statement.excluded
        changes = {name: new[name] for name in rows.MUTABLE_COLUMNS}
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=["saga", "id"], set_=changes)
        )
        if steps := [row for instance in begun for row in rows.to_step_rows(instance, self.now)]:
            await self._connection.execute(insert(STEPS), steps)
        await self._write_timers([rows.to_timer_rows(instance) for instance in begun])
        await self._stop_or_resume_timers(begun[0].saga, begun)
        for instance in begun:
            if instance.was_unreadable:
                await self.resume(instance)

    async def _mark_unreadable(self, instance: Instance) -> None:
        await self._connection.execute(
            update(SAGAS)
            .where(SAGAS.c.saga == instance.saga.name, SAGAS.c.id == instance.id)
            .values(rows.to_unreadable_row(instance))
        )

    async def resume(self, instance: Instance) -> None:
        """Make the instance's pending steps due now, and its postponed timers at their own times."""
        of_instance = rows.to_key(instance).values()
        await self._connection.execute(
            update(STEPS)
            .where(tuple_(STEPS.c.saga, STEPS.c.id) == tuple_(*of_instance), STEPS.c.outcome.is_(None))
            .values(due_at=self.now)
        )
        await self._connection.execute(
            update(TIMERS)
            .where(tuple_(TIMERS.c.saga, TIMERS.c.id) == tuple_(*of_instance))
            .values(postponed_to=None)
        )

    async def _stop_or_resume_timers(self, saga: Saga[Any], written: Sequence[Instance]) -> None:
        """Stop the timers of instances that fail on an event; resume those of instances that did so far."""
        await self.stop_timers(saga, [each.id for each in written if each.failure])
        resumed = [each for each in written if each.was_failing or each.was_unreadable]
        await self.resume_timers(saga, [each.id for each in resumed if not each.failure])
        set_ids = [each.id for each in written if any(each.timers.values())]
        await stopped_timers.stop_parked(self._connection, saga, set_ids, self.now)

    async def stop_timers(self, saga: Saga[Any], ids: Collection[str]) -> None:
        """Stop the timers of instances that lack an event."""
        await stopped_timers.stop(self._connection, saga, ids, self.now)

    async def resume_timers(self, saga: Saga[Any], ids: Collection[str]) -> None:
        """Let the stopped timers of these instances fire later by as long as they were stopped."""
        await stopped_timers.resume(self._connection, saga, ids, self.now)

    async def _write_timers(self, timers: Sequence[tuple[list[Any], list[Any]]]) -> None:
        if timer_rows := [row for set_rows, _ in timers for row in set_rows]:
            statement = insert(TIMERS).values(timer_rows)
            changes = {"due_at": statement.excluded.due_at, "postponed_to": None, "stopped_at": None}
            await self._connection.execute(
                statement.on_conflict_do_update(index_elements=["saga", "id", "name"], set_=changes)
            )
        if cancelled := [key for _, keys in timers for key in keys]:
            await self._connection.execute(
                delete(TIMERS).where(tuple_(TIMERS.c.saga, TIMERS.c.id, TIMERS.c.name).in_(cancelled))
            )


def _matches_stream(feed: Feed, stream: str) -> ColumnElement[bool]:
    return and_(PARKED_STREAMS.c.saga == feed.saga, PARKED_STREAMS.c.stream == stream)


def _compute_lock_key(saga: str, id_: str) -> int:
    digest = blake2b(f"saga/{saga}/{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
