"""One transaction in which sagas are told something: what they were and have become, how far they heard."""

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
    is_step,
    is_timer,
)
from process_manager.instance import Instance
from process_manager.saga import Saga
from process_manager.schema import CHECKPOINTS, OPERATOR_ACTIONS, SAGAS, STEPS, TIMERS


class Transaction:
    """One transaction; made by `SagaStore.begin`.

    Args:
        connection: in which the transaction runs.
        now: the database's time.
    """

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self.now = now

    async def advance_checkpoint(self, saga: str, partition: int, old: Checkpoint, new: Checkpoint) -> None:
        """Move a kind of saga's progress in a partition.

        Raises:
            Superseded: it is not at `old`.
        """
        row = {"saga": saga, "partition": partition, "epoch": new[0], "sequence": new[1]}
        if old == NO_CHECKPOINT:
            moved = insert(CHECKPOINTS).values(row).on_conflict_do_nothing()
        else:
            moved = (
                update(CHECKPOINTS)  # type: ignore[assignment]
                .where(CHECKPOINTS.c.saga == saga, CHECKPOINTS.c.partition == partition)
                .where(CHECKPOINTS.c.epoch == old[0], CHECKPOINTS.c.sequence == old[1])
                .values(row)
            )
        if (await self._connection.execute(moved)).rowcount != 1:
            raise CheckpointConflict(f"{saga} was moved on in partition {partition}")

    async def lock(self, saga: Saga[Any], ids: Collection[str]) -> dict[str, Instance]:
        """Return sagas of a kind by their ids, new ones where there were none, locked until the end."""
        known = await self._connection.execute(
            select(SAGAS)
            .where(SAGAS.c.saga == saga.name, SAGAS.c.id.in_(ids))
            .order_by(SAGAS.c.id)
            .with_for_update()
        )
        found = {row.id: rows.instance(saga, row) for row in known}
        sent = await self._connection.execute(
            select(STEPS.c.id, STEPS.c.step, func.max(STEPS.c.attempt).label("attempts"))
            .where(STEPS.c.saga == saga.name, STEPS.c.id.in_(list(found)))
            .group_by(STEPS.c.id, STEPS.c.step)
        )
        for row in sent:
            found[row.id].attempts[row.step] = row.attempts
        return {id_: found.get(id_) or Instance(saga, id_, saga.initial) for id_ in ids}

    async def record_outcome(self, step: DueStep, outcome: str) -> bool:
        """Record a step's outcome; return False where it has one already."""
        answered = (
            update(STEPS)
            .where(is_step(step), STEPS.c.outcome.is_(None))
            .values(outcome=outcome, answered_at=self.now, error=None, tries=STEPS.c.tries + 1)
        )
        return (await self._connection.execute(answered)).rowcount == 1

    async def remove_timer(self, timer: DueTimer) -> bool:
        """Take a timer away; return False where it is gone, or set to another time."""
        return (await self._connection.execute(delete(TIMERS).where(is_timer(timer)))).rowcount == 1

    async def record_action(self, instance: Instance, action: str, reason: str, operator: str) -> None:
        """Put on record what an operator wanted of a saga."""
        row = {**rows.key(instance), "action": action, "reason": reason, "operator": operator, "at": self.now}
        await self._connection.execute(insert(OPERATOR_ACTIONS).values(row))

    async def write(self, instances: Iterable[Instance]) -> None:
        """Write what sagas have become and what they want."""
        known = [instance for instance in instances if instance.began_at is not None or instance.failed_input]
        if not known:
            return
        sagas = insert(SAGAS).values([rows.of(instance, self.now) for instance in known])
        new: Any = sagas.excluded
        changed = {name: new[name] for name in rows.CHANGING}
        await self._connection.execute(
            sagas.on_conflict_do_update(index_elements=["saga", "id"], set_=changed)
        )
        if steps := [row for instance in known for row in rows.steps_of(instance, self.now)]:
            await self._connection.execute(insert(STEPS), steps)
        await self._set_timers([rows.timers_of(instance) for instance in known])

    async def _set_timers(self, timers: Sequence[tuple[list[Any], list[Any]]]) -> None:
        if wanted := [row for those, _ in timers for row in those]:
            made = insert(TIMERS).values(wanted)
            again = {"due_at": made.excluded.due_at}
            await self._connection.execute(
                made.on_conflict_do_update(index_elements=["saga", "id", "name"], set_=again)
            )
        if gone := [key for _, keys in timers for key in keys]:
            await self._connection.execute(
                delete(TIMERS).where(tuple_(TIMERS.c.saga, TIMERS.c.id, TIMERS.c.name).in_(gone))
            )
