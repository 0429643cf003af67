"""Sagas as an operator sees them, and what an operator can do about them: retry and abort."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from getpass import getuser

from process_manager.engine import Engine, UnknownSaga
from process_manager.event_consumer import history
from process_manager.instance import Instance
from process_manager.saga import ActionNotPossible
from process_manager.saga_reader import SagaDetails, SagaReader, SagaRow
from process_manager.sagas import SAGAS
from process_manager.store import SagaStore
from runtime import jetstream
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

READY = 5.0
"""Seconds that NATS has to answer."""
KINDS = tuple(saga.name for saga in SAGAS)


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[SagaStore]:
    store = SagaStore(settings.database_url)
    try:
        yield store
    finally:
        await store.close()


async def page(settings: Settings, kind: str, state: str, ended: bool, limit: int) -> str:
    """Return a line for each saga: overdue ones first.

    Args:
        settings: where PostgreSQL is.
        kind: only sagas of this kind; empty for all.
        state: only those in this state; empty for all.
        ended: those that have ended, too.
        limit: how many of each kind at the most.
    """
    async with _store(settings) as store:
        sagas = SagaReader(store.engine)
        rows = [
            row
            for name in ([kind] if kind else KINDS)
            for row in await sagas.page(name, status=state, open_only=not ended, limit=limit)
        ]
    if not rows:
        return "there are none" if ended else "there are no open ones"
    return "\n".join(_aligned(_line(row) for row in rows))


async def story(settings: Settings, id_: str, kind: str) -> str:
    """Return all that is known of one saga.

    Raises:
        StartError: there is none, or there are several of this id.
    """
    async with _store(settings) as store:
        sagas = SagaReader(store.engine)
        name = await _kind_of(sagas, id_, kind)
        found = await sagas.find(name, id_)
    if found is None:
        raise StartError(f"there is no {name} {id_}")
    return "\n".join(_story(found))


async def retry(settings: Settings, id_: str, kind: str) -> str:
    """Let a saga try again what it is stopped at; return where it stands then.

    Raises:
        StartError: there is none, or there are several of this id.
    """
    connection = await jetstream.connect(settings.nats_url, "operations")
    try:
        async with _store(settings) as store:
            name = await _kind_of(SagaReader(store.engine), id_, kind)
            engine = Engine(store, SAGAS, history(connection))
            return _said(await engine.retry(name, id_, getuser()))
    except (UnknownSaga, ActionNotPossible) as error:
        raise StartError(str(error)) from error
    finally:
        await connection.close()


async def abort(settings: Settings, id_: str, kind: str, reason: str) -> str:
    """Let a saga end, undoing what can be undone; return where it stands then.

    Raises:
        StartError: there is none, there are several of this id, or it cannot be ended where it is.
    """

    async def no_history(_: str) -> Sequence[object]:
        raise AssertionError("an abort hears nothing")

    async with _store(settings) as store:
        name = await _kind_of(SagaReader(store.engine), id_, kind)
        try:
            engine = Engine(store, SAGAS, no_history)  # type: ignore[arg-type]
            return _said(await engine.abort(name, id_, reason, getuser()))
        except (UnknownSaga, ActionNotPossible) as error:
            raise StartError(str(error)) from error


async def _kind_of(sagas: SagaReader, id_: str, kind: str) -> str:
    kinds = [kind] if kind else await sagas.kinds_of(id_)
    if not kinds:
        raise StartError(f"there is no saga {id_}")
    if len(kinds) > 1:
        raise StartError(f"there are several sagas {id_}, choose one with --saga: {', '.join(kinds)}")
    return kinds[0]


def _said(instance: Instance) -> str:
    status = instance.status
    return f"{instance.saga.name} {instance.id} is {status.state}" + (
        f": {status.blocked_reason}" if status.blocked_reason else ""
    )


def _line(row: SagaRow) -> Sequence[str]:
    return row.saga, row.id, row.status, f"since {_instant(row.status_since)}", _how(row)


def _how(row: SagaRow) -> str:
    said = (
        [row.blocked_reason]
        if row.blocked_reason
        else [f"waits for {row.waiting_for}"]
        if row.waiting_for
        else []
    )
    if row.due_at and row.due_at < datetime.now(UTC):
        said.insert(0, f"overdue since {_instant(row.due_at)}")
    return ", ".join(said)


def _story(found: SagaDetails) -> Iterable[str]:
    row = found.row
    yield f"{row.saga} {row.id}: {row.status} since {_instant(row.status_since)}"
    if said := _how(row):
        yield said
    yield f"began {_instant(row.began_at)}, has heard version {row.version}"
    yield from _aligned(
        (
            _instant(step.decided_at),
            f"{step.step}" + (f" (attempt {step.attempt})" if step.attempt > 1 else ""),
            step.outcome or f"sent {step.tries} times, no answer: {step.error or 'yet'}",
            f"answered {_instant(step.answered_at)}" if step.answered_at else "",
        )
        for step in found.steps
    )
    for name, due in found.timers.items():
        yield f"timer {name} at {_instant(due)}"
    for action in found.operator_actions:
        yield f"{_instant(action.at)}  {action.operator}: {action.action} {action.reason}".rstrip()


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
