"""Stops the timers of instances that lack an event, and resumes them.

A timer that is stopped does not fire. When it is resumed, it fires later by as long as it was stopped: a saga
is not late because of an event that this release could not read.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from process_manager.saga import Saga

STOP = text("""
UPDATE saga_timers SET stopped_at = :now
WHERE saga = :saga AND id = ANY(CAST(:ids AS text[])) AND stopped_at IS NULL
""")
STOP_PARKED = text("""
UPDATE saga_timers t SET stopped_at = :now FROM saga_parked_streams p
WHERE t.saga = :saga AND t.id = ANY(CAST(:ids AS text[])) AND t.stopped_at IS NULL
AND p.saga = t.saga AND p.stream = :own_type || '.' || t.id
""")
RESUME = text("""
UPDATE saga_timers
SET due_at = due_at + greatest(:now - stopped_at, interval '0'), stopped_at = NULL, postponed_to = NULL
WHERE saga = :saga AND id = ANY(CAST(:ids AS text[])) AND stopped_at IS NOT NULL
""")


async def stop(connection: AsyncConnection, saga: Saga[Any], ids: Collection[str], now: datetime) -> None:
    """Stop the timers of these instances, except those that are stopped already."""
    if ids:
        await connection.execute(STOP, {"saga": saga.name, "ids": list(ids), "now": now})


async def stop_parked(
    connection: AsyncConnection, saga: Saga[Any], ids: Collection[str], now: datetime
) -> None:
    """Stop the timers of those of these instances whose own streams are parked."""
    if ids and saga.own_type:
        parameters = {"saga": saga.name, "ids": list(ids), "own_type": saga.own_type, "now": now}
        await connection.execute(STOP_PARKED, parameters)


async def resume(connection: AsyncConnection, saga: Saga[Any], ids: Collection[str], now: datetime) -> None:
    """Resume the timers of these instances."""
    if ids:
        await connection.execute(RESUME, {"saga": saga.name, "ids": list(ids), "now": now})
