"""Sagas as rows: what is written of one, and the one that a row is. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from contracts import streams
from process_manager.instance import Instance
from process_manager.saga import Saga, SagaStatus

CHANGING = (
    "version",
    "state",
    "status",
    "ended",
    "waiting_for",
    "blocked_reason",
    "failed_input",
    "status_since",
    "due_at",
)
"""The columns of a saga that change when it is told something."""


def of(instance: Instance, now: datetime) -> dict[str, Any]:
    """Return a saga's row."""
    status = instance.status
    status_since = (
        instance.status_since if instance.status_since and status.state == instance.stored_status else now
    )
    return {
        **key(instance),
        "partition": streams.partition(instance.id),
        "version": instance.version,
        "state": msgspec.to_builtins(instance.state),
        "status": status.state,
        "ended": status.ended,
        "waiting_for": status.waiting_for,
        "blocked_reason": status.blocked_reason,
        "failed_input": instance.failed_input,
        "correlation_id": instance.correlation_id,
        "traceparent": instance.traceparent,
        "began_at": instance.began_at or now,
        "status_since": status_since,
        "due_at": _due(status, status_since),
    }


def steps_of(instance: Instance, now: datetime) -> list[dict[str, Any]]:
    """Return the rows of the steps that it has wanted since it was loaded."""
    return [
        {
            **key(instance),
            "partition": streams.partition(instance.id),
            "step": step.step,
            "attempt": step.attempt,
            "number": step.number,
            "method": step.method,
            "request": step.request,
            "request_id": step.request_id,
            "decided_at": now,
            "due_at": now,
            "tries": 0,
        }
        for step in instance.steps
    ]


def timers_of(instance: Instance) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Return the rows of the timers that it has set since then, and the keys of those that it took away."""
    partition = streams.partition(instance.id)
    rows = [
        {**key(instance), "name": name, "partition": partition, "due_at": at}
        for name, at in instance.timers.items()
        if at is not None
    ]
    gone = [(instance.saga.name, instance.id, name) for name, at in instance.timers.items() if at is None]
    return rows, gone


def _due(status: SagaStatus, status_since: datetime) -> datetime | None:
    """Return until when a saga should stand elsewhere; what needs an operator is overdue at once."""
    if status.ended or (status.within is None and not status.blocked_reason):
        return None
    return status_since if status.blocked_reason else status_since + (status.within or timedelta())


def key(instance: Instance) -> dict[str, str]:
    """Return what tells a saga's rows from others."""
    return {"saga": instance.saga.name, "id": instance.id}


def instance(saga: Saga[Any], row: Any) -> Instance:
    """Return the saga of a row."""
    state: Mapping[str, Any] = row.state
    return Instance(
        saga,
        row.id,
        msgspec.convert(state, type(saga.initial)),
        row.version,
        row.began_at,
        row.correlation_id,
        row.traceparent,
        failed_input=row.failed_input,
        stored_status=row.status,
        status_since=row.status_since,
    )
