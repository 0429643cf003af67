"""The instances that deadlines become, with their timers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from contracts import streams
from process_manager.deadlines import statements
from process_manager.deadlines.changes import DeadlineSaga, Key
from process_manager.postgres.columns import to_columns
from process_manager.postgres.due_work import DueTimer
from process_manager.postgres.group_store import is_outage
from process_manager.postgres.statement_session import StatementSession
from process_manager.postgres.stored_values import to_json
from runtime.process import logs

log = logs.get_logger(__name__)


class DeadlineInstances:
    """Begins the instances of deadlines.

    Args:
        sagas: the sagas with deadlines by name.
        session: the connection of the deadlines.
    """

    def __init__(self, sagas: Mapping[str, DeadlineSaga], session: StatementSession) -> None:
        self._sagas = sagas
        self._session = session

    async def begin(self, due: Collection[DueTimer]) -> tuple[set[Key], Collection[DueTimer]]:
        """Turn deadlines into instances; return those that began, and those that cannot."""
        rows, failed = dict[DueTimer, Sequence[Any]](), dict[DueTimer, Exception]()
        for timer in due:
            try:
                rows[timer] = self._to_instance(timer)
            except Exception as error:
                failed[timer] = error
        keys = await self._begin_rows(rows, failed)
        if failed:
            await self._session.fetch(
                statements.REMOVE_REPLACED, *to_columns(((t.saga, t.id) for t in failed), 2)
            )
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
            begun = await self._session.fetch(statements.BEGIN_INSTANCES, *to_columns(rows.values(), 8))
        except Exception as error:
            if is_outage(error):
                raise
            if len(rows) == 1:  # PostgreSQL refuses it
                failed.update(dict.fromkeys(rows, error))
                return set()
            return {key for each in rows.items() for key in await self._begin_rows(dict([each]), failed)}
        return {(row["saga"], row["id"]) for row in begun}

    def _to_instance(self, timer: DueTimer) -> Sequence[Any]:
        """Return the columns of a deadline's instance: key, deadline, timer, state, status, and its cause."""
        saga = self._sagas[timer.saga]
        state = saga.deadline.begin(timer.id, timer.due_at)
        status = saga.saga.describe_status(state)
        key = timer.saga, timer.id, timer.due_at, timer.name
        first_event = f"{streams.stream_name(saga.saga.own_type, timer.id)}@1"
        return *key, to_json(state), status.state, status.waiting_for, first_event
