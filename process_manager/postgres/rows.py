"""Conversion between saga instances and their rows. Pure."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from contracts import streams
from process_manager.groups.cause import Cause
from process_manager.groups.instance import Instance
from process_manager.groups.stream_position import StreamPosition
from process_manager.postgres.stored_values import to_json, to_text
from process_manager.saga import Saga, SagaStatus
from runtime.process.logs.repeated_errors import describe_error

T = TypeVar("T")


def to_row(instance: Instance, now: datetime) -> dict[str, Any]:
    """Return the row of `sagas`; a change of status begins `now`."""
    status = instance.status
    status_since = (
        instance.status_since if instance.status_since and status.state == instance.stored_status else now
    )
    return {
        **to_key(instance),
        "partition": streams.partition(instance.id),
        "version": instance.version,
        "other_streams": _to_positions(instance),
        "state": to_json(instance.state),
        "status": status.state,
        "ended": status.ended,
        "waiting_for": status.waiting_for,
        "blocked_reason": status.blocked_reason,
        "failed_input": instance.failed_input,
        "correlation_id": instance.correlation_id,
        "traceparent": instance.traceparent,
        "began_at": instance.began_at or now,
        "status_since": status_since,
        "due_at": _compute_due_at(status, status_since),
        "latest_cause": None if instance.latest_cause is None else to_json(instance.latest_cause),
    }


def to_unreadable_row(instance: Instance) -> dict[str, Any]:
    """Return the columns to set of an instance that cannot be read: which inputs wait, and why.

    All that this release could not read stays as it is.
    """
    return {
        **to_key(instance),
        "failed_input": instance.failed_input,
        "blocked_reason": instance.failure or instance.unreadable,
        "due_at": instance.status_since,
        "other_streams": None if instance.positions_unreadable else _to_positions(instance),
    }


def to_step_rows(instance: Instance, now: datetime) -> list[dict[str, Any]]:
    """Return the rows of the new steps, due at once."""
    return [
        {
            **to_key(instance),
            "partition": streams.partition(instance.id),
            "step": step.step,
            "attempt": step.attempt,
            "number": step.number,
            "method": step.method,
            "request": step.request,
            "request_id": step.request_id,
            "at": now,
            **msgspec.structs.asdict(step.cause),
        }
        for step in instance.steps
    ]


def to_timer_rows(instance: Instance, stopped_at: datetime | None) -> list[dict[str, Any]]:
    """Return the rows of the timers to set."""
    partition = streams.partition(instance.id)
    return [
        {
            **to_key(instance),
            "name": name,
            "partition": partition,
            "due_at": at,
            "stopped_at": stopped_at,
            **msgspec.structs.asdict(instance.timer_causes[name]),
        }
        for name, at in instance.timers.items()
        if at is not None
    ]


def to_key(instance: Instance) -> dict[str, str]:
    """Return the columns that identify an instance in every table."""
    return {"saga": instance.saga.name, "id": instance.id}


def from_row(saga: Saga[Any], id_: str, row: Any) -> Instance:
    """Return the instance of a row with its steps; one that cannot be read says so."""
    steps = list(zip(row["steps"] or (), row["attempts"] or (), row["pending"] or (), strict=True))
    pending = {(step, attempt) for step, attempt, is_pending in steps if is_pending}
    if row["version"] is None:
        return Instance(saga, id_, saga.initial, pending=pending)
    instance = _from_existing_row(saga, row)
    instance.pending = pending
    for step, attempt, _ in steps:
        instance.attempts[step] = max(attempt, instance.attempts.get(step, 0))
    return instance


def _from_existing_row(saga: Saga[Any], row: Any) -> Instance:
    state, state_error = _try(lambda: _read_state(saga, row["state"]), saga.initial)
    no_positions: dict[str, StreamPosition] = {}
    positions, positions_error = _try(lambda: _read_positions(saga, row["other_streams"]), no_positions)
    no_attempts: dict[str, int] = {}
    attempts, attempts_error = _try(lambda: _read_attempts(row["archived_steps"]), no_attempts)
    latest_cause, _ = _try(lambda: msgspec.convert(row["latest_cause"], Cause | None), None)
    instance = Instance(
        saga,
        row["id"],
        state,
        row["version"],
        row["began_at"],
        row["correlation_id"],
        row["traceparent"],
        latest_cause,
        attempts=attempts,
        operator_actions=row["operator_actions"],
        failed_input=row["failed_input"],
        other_streams=positions,
        stored_status=row["status"],
        status_since=row["status_since"],
        unreadable=state_error or positions_error or attempts_error,
        positions_unreadable=bool(positions_error),
        was_unreadable=row["unreadable"],
        revision=row["revision"],
    )
    instance.was_failing = bool(instance.failure)
    return instance


def find_error(
    saga: Saga[Any] | None, state: object, other_streams: object, archived_steps: object = None
) -> str:
    """Return why this release cannot read a row with these columns; empty if it can."""
    if saga is None:
        return "no installed context has this saga"
    _, state_error = _try(lambda: _read_state(saga, state), None)
    _, positions_error = _try(lambda: _read_positions(saga, other_streams), None)
    _, attempts_error = _try(lambda: _read_attempts(archived_steps), None)
    return state_error or positions_error or attempts_error


def needs_input(saga: Saga[Any], state: object) -> bool:
    """Return whether a readable state is of an earlier release, and its instance needs an input."""
    return saga.needs_input(msgspec.convert(state, type(saga.initial)))


def _try(read: Callable[[], T], default: T) -> tuple[T, str]:
    """Return what `read` returns, or a default and the error."""
    try:
        return read(), ""
    except Exception as error:  # the row may be of another release, and hold anything
        return default, to_text(f"its row cannot be read: {describe_error(error)}")


def _read_state(saga: Saga[Any], column: object) -> Any:
    """Return the state, once it is known that its status can be described."""
    state = msgspec.convert(column, type(saga.initial))
    saga.describe_status(state)
    return state


def _read_attempts(column: object) -> dict[str, int]:
    return {} if column is None else msgspec.convert(column, dict[str, int])


def _read_positions(saga: Saga[Any], column: object) -> dict[str, StreamPosition]:
    """Return the positions, without failures on streams to which the saga does not subscribe any more."""
    types = {subscription.stream_type for subscription in saga.subscribes_to}
    return {
        stream: position if streams.stream_type(stream) in types else StreamPosition(position.version)
        for stream, position in msgspec.convert(column, dict[str, StreamPosition]).items()
    }


def _to_positions(instance: Instance) -> str:
    return msgspec.json.encode(instance.other_streams).decode()


def _compute_due_at(status: SagaStatus, status_since: datetime) -> datetime | None:
    """Return when a saga becomes overdue: a blocked one at once, one without a limit never (None)."""
    if status.ended or (status.max_duration is None and not status.blocked_reason):
        return None
    try:
        return status_since if status.blocked_reason else status_since + (status.max_duration or timedelta())
    except OverflowError:  # a row may say infinity
        return None
