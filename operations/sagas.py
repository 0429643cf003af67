"""Lists and shows sagas for operators, and carries out their actions: retry and abort."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from getpass import getuser
from shlex import quote
from typing import Any

from process_manager.deadlines.reader import WatchedDeadlines, count_deadlines
from process_manager.engine import Engine
from process_manager.feeds.stream_reads import read_stream_from
from process_manager.groups.instance import Instance, RowUnreadable
from process_manager.groups.instance_inputs import UnknownSaga
from process_manager.postgres.store import SagaStore
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.saga_records import SagaCounts, SagaDetails, SagaFilter, SagaRow
from process_manager.saga import ActionNotPossible, Saga
from runtime import jetstream
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.process.terminal import escape

MAX_OPERATOR_LENGTH = 100
"""Characters of an operator's name that are recorded."""


def load_sagas(settings: Settings) -> list[Saga[Any]]:
    """Return the sagas of the chosen contexts.

    Raises:
        StartError: a context is unknown or invalid.
    """
    return load_parts(choose_contexts(settings), "sagas", "SAGAS", Saga)


@asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[SagaStore]:
    store = SagaStore(settings.database_url)
    try:
        yield store
    finally:
        await store.close()


async def list_sagas(settings: Settings, saga_name: str, state: str, ended: bool, limit: int) -> str:
    """Return a line for each saga instance, of each saga the longest overdue first.

    Args:
        settings: name the database.
        saga_name: selects one saga; empty for all.
        state: selects one state; empty for all.
        ended: whether to include the instances that have ended.
        limit: the maximum number of instances of each saga.

    Raises:
        StartError: there is no saga of this name.
    """
    chosen, filter_ = _choose_sagas(settings, saga_name), SagaFilter(state, open_only=not ended)
    async with _open_store(settings) as store:
        sagas = SagaReader(store.engine, chosen)
        rows = [row for saga in chosen for row in await sagas.read_page([saga.name], filter_, limit=limit)]
        notes = await _describe_feeds(FeedReader(store.engine), [saga.name for saga in chosen])
        notes += _describe_deadlines(await count_deadlines(store.engine, [saga.name for saga in chosen]))
        if not saga_name:
            notes += _describe_unknown(await sagas.count_open(), chosen)
    lines = _align(_list_cells(row) for row in rows) if rows else ["no sagas" if ended else "no open sagas"]
    return "\n".join([*lines, *map(escape, notes)])


def _describe_unknown(counts: Mapping[str, SagaCounts], known: Sequence[Saga[Any]]) -> list[str]:
    """Return a line for each saga with open instances that no chosen context has."""
    names = sorted(counts.keys() - {saga.name for saga in known})
    return [f"{name} has {counts[name].open} open, but no chosen context has this saga" for name in names]


def _describe_deadlines(deadlines: Mapping[str, WatchedDeadlines]) -> list[str]:
    """Return a line for each saga with deadlines at which instances begin."""
    return [
        f"{name} has {each.count} deadlines to come, the next one at {_format_time(each.next_at)}"
        for name, each in sorted(deadlines.items())
    ]


async def _describe_feeds(feeds: FeedReader, names: Sequence[str]) -> list[str]:
    """Return a line for each parked stream of these sagas, and for each saga that passes over events."""
    parked = [
        f"{row.saga} has parked {row.stream} at version {row.version}"
        f" since {_format_time(row.since)}: {row.error or 'its events are read'}"
        for row in await feeds.read_parked_streams(names)
    ]
    beginnings = await feeds.read_beginnings()
    return parked + [
        f"{name} passes over events recorded before {_format_time(beginnings[name])}"
        for name in names
        if name in beginnings
    ]


async def show_sagas(settings: Settings, id_: str, saga_name: str) -> str:
    """Return the status, steps, timers and operators' actions of each saga of this id, a line each.

    Raises:
        StartError: there is no saga of this id or name.
    """
    chosen = _choose_sagas(settings, saga_name)
    async with _open_store(settings) as store:
        sagas = SagaReader(store.engine, chosen)
        all_details = [await sagas.find(name, id_) for name in await _find_names(sagas, id_, chosen)]
    return "\n\n".join(describe(details) for details in all_details if details)


async def retry(settings: Settings, id_: str, saga_name: str) -> str:
    """Retry the rejected step or the failed event of a saga; return its status.

    Raises:
        StartError: there is no saga of this id, or more than one, or its state does not permit a retry.
    """
    chosen = _choose_sagas(settings, saga_name)
    connection = await jetstream.connect(settings.nats_url, "operations")
    try:
        async with _open_store(settings) as store:
            name = await _choose_name(SagaReader(store.engine), id_, chosen, "retry")
            engine = Engine(store, chosen, read_stream_from(connection))
            return _format_status(await engine.retry(name, id_, find_operator()))
    except (UnknownSaga, ActionNotPossible, RowUnreadable) as error:
        raise StartError(str(error)) from error
    finally:
        await connection.close()


async def abort(settings: Settings, id_: str, saga_name: str, reason: str) -> str:
    """Abort a saga; return its status.

    Raises:
        StartError: there is no saga of this id, or more than one, or its state does not permit an abort.
    """
    chosen = _choose_sagas(settings, saga_name)

    async def read_no_stream(_: str) -> Sequence[object]:
        raise AssertionError("an abort reads no events")

    async with _open_store(settings) as store:
        name = await _choose_name(SagaReader(store.engine), id_, chosen, "abort", f"--reason {quote(reason)}")
        try:
            engine = Engine(store, chosen, read_no_stream)  # type: ignore[arg-type]
            return _format_status(await engine.abort(name, id_, reason, find_operator()))
        except (UnknownSaga, ActionNotPossible, RowUnreadable) as error:
            raise StartError(str(error)) from error


def find_operator() -> str:
    """Return the name to record: that of the user in the environment, which may hold anything."""
    return escape(getuser())[:MAX_OPERATOR_LENGTH]


def _choose_sagas(settings: Settings, saga_name: str) -> list[Saga[Any]]:
    """Return the saga of this name, or all sagas."""
    sagas = load_sagas(settings)
    names = [saga.name for saga in sagas]
    if saga_name and saga_name not in names:
        raise StartError(f"--saga: there is no saga {saga_name} (known: {', '.join(names)})")
    return [saga for saga in sagas if saga_name in ("", saga.name)]


async def _find_names(sagas: SagaReader, id_: str, chosen: Sequence[Saga[Any]]) -> Sequence[str]:
    """Return the names of the sagas that have an instance of this id."""
    existing = await sagas.find_names(id_)
    if names := [saga.name for saga in chosen if saga.name in existing]:
        return names
    raise StartError(f"there is no {chosen[0].name if len(chosen) == 1 else 'saga'} {id_}")


async def _choose_name(
    sagas: SagaReader, id_: str, chosen: Sequence[Saga[Any]], action: str, *options: str
) -> str:
    """Return the name of the saga to act on; if there are several, fail with the commands to type."""
    names = await _find_names(sagas, id_, chosen)
    if len(names) == 1:
        return names[0]
    commands = (" ".join(("diptych sagas", action, quote(id_), "--saga", name, *options)) for name in names)
    raise StartError(f"{id_} is the id of {len(names)} sagas, type one of: {' | '.join(commands)}")


def _format_status(instance: Instance) -> str:
    status = instance.status
    reason = f": {status.blocked_reason}" if status.blocked_reason else ""
    return escape(f"{instance.saga.name} {instance.id} is {status.state}{reason}")


def _list_cells(row: SagaRow) -> Sequence[str]:
    return row.saga, row.id, row.status, f"since {_format_time(row.status_since)}", _format_progress(row)


def _format_progress(row: SagaRow) -> str:
    """Return a saga's due time if it is overdue, then its blocked reason or the input that it waits for."""
    parts = []
    if row.due_at and row.due_at < datetime.now(UTC):
        parts.append(f"overdue since {_format_time(row.due_at)}")
    if row.blocked_reason:
        parts.append(row.blocked_reason)
    elif row.waiting_for:
        parts.append(f"waits for {row.waiting_for}")
    return ", ".join(parts)


def describe(details: SagaDetails) -> str:
    """Return the status, steps, timers and operators' actions of a saga, a line each."""
    return "\n".join(map(escape, _list_facts(details)))


def _list_facts(details: SagaDetails) -> Iterable[str]:
    row = details.row
    yield f"{row.saga} {row.id}: {row.status} since {_format_time(row.status_since)}"
    if progress := _format_progress(row):
        yield progress
    yield f"began {_format_time(row.began_at)}, has processed version {row.version}"
    for stream, position in row.other_streams.items():
        yield f"has processed version {position['version']} of {stream}"
    yield from _align(
        (
            _format_time(step.decided_at),
            f"{step.step}" + (f" (attempt {step.attempt})" if step.attempt > 1 else ""),
            step.outcome
            or f"sent {step.tries} times, no answer" + (f": {step.error}" if step.error else " yet"),
            f"answered {_format_time(step.answered_at)}" if step.answered_at else "",
        )
        for step in details.steps
    )
    for name, due_at in details.timers.items():
        yield f"timer {name} at {_format_time(due_at)}"
    for action in details.operator_actions:
        yield f"{_format_time(action.at)}  {action.operator}: {action.action} {action.reason}".rstrip()


def _align(rows: Iterable[Sequence[str]]) -> list[str]:
    table = [list(map(escape, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
