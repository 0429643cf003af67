"""One transaction on saga instances: lock them, record the input, write the reaction.

How it works:

- `lock` reads the instances' rows FOR UPDATE in the order of their ids, so that two managers with the same
  instances wait for each other and cannot deadlock. An id without a row yields a new instance.
- The record of the input guards against a second delivery. `advance_checkpoint` compares and sets,
  `record_outcome` sets an outcome only where there is none, and `remove_timer` deletes exactly the timer
  that was read. A caller that sees a guard fail writes nothing.
- `write` upserts the instances' rows, inserts their new steps, and sets or cancels their timers. Two
  managers may both create an instance; the checkpoint, which is advanced first, permits only one to commit.
- All times are the database's (`now`, read when the transaction begins), so managers' clocks do not matter.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from process_manager import rows
from process_manager.due_work import (
    NO_CHECKPOINT,
    Checkpoint,
    CheckpointConflict,
    DueStep,
    DueTimer,
    matches_step,
    matches_timer,
)
from process_manager.instance import Instance
from process_manager.saga import Saga
from process_manager.schema import CHECKPOINTS, OPERATOR_ACTIONS, SAGAS, STEPS, TIMERS


class Transaction:
    """One transaction, opened by `SagaStore.begin`.

    Args:
        connection: runs the transaction.
        now: the database's time.
    """

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    async def advance_checkpoint(self, saga: str, partition: int, old: Checkpoint, new: Checkpoint) -> None:
        """Advance a saga's checkpoint in a partition.

        Raises:
            CheckpointConflict: the checkpoint is not at `old`.
        """
        row = {"saga": saga, "partition": partition, "epoch": new[0], "sequence": new[1]}
        if old == NO_CHECKPOINT:
            statement = insert(CHECKPOINTS).values(row).on_conflict_do_nothing()
        else:
            statement = (
                update(CHECKPOINTS)  # type: ignore[assignment]
                .where(CHECKPOINTS.c.saga == saga, CHECKPOINTS.c.partition == partition)
                .where(CHECKPOINTS.c.epoch == old[0], CHECKPOINTS.c.sequence == old[1])
                .values(row)
            )
        if (await self._connection.execute(statement)).rowcount != 1:
            raise CheckpointConflict(f"{saga}: another manager has advanced partition {partition}")

    async def lock(self, saga: Saga[Any], ids: Collection[str]) -> dict[str, Instance]:
        """Return the instances of these ids, locked until the transaction ends; new ones where none exist."""
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

    async def record_outcome(self, step: DueStep, outcome: str) -> bool:
        """Record a step's outcome; return False if it has one."""
        statement = (
            update(STEPS)
            .where(matches_step(step), STEPS.c.outcome.is_(None))
            .values(outcome=outcome, answered_at=self.now, error=None, tries=STEPS.c.tries + 1)
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

    async def write(self, instances: Iterable[Instance]) -> None:
        """Write the instances with their new steps and timers; skip those that have received no input."""
        begun = [instance for instance in instances if instance.began_at is not None or instance.failed_input]
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

    async def _write_timers(self, timers: Sequence[tuple[list[Any], list[Any]]]) -> None:
        if timer_rows := [row for set_rows, _ in timers for row in set_rows]:
            statement = insert(TIMERS).values(timer_rows)
            changes = {"due_at": statement.excluded.due_at}
            await self._connection.execute(
                statement.on_conflict_do_update(index_elements=["saga", "id", "name"], set_=changes)
            )
        if cancelled := [key for _, keys in timers for key in keys]:
            await self._connection.execute(
                delete(TIMERS).where(tuple_(TIMERS.c.saga, TIMERS.c.id, TIMERS.c.name).in_(cancelled))
            )
