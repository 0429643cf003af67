"""The timings of a command, read from PostgreSQL and JetStream afterwards."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg
from diptych.consistency.v1.consistency_pb2 import Receipt

from contracts import streams
from runtime.jetstream import Connection
from runtime.process.start_error import StartError

# Needs `track_commit_timestamp`, which the stack's PostgreSQL has.
SELECT_COMMIT_TIME = "SELECT pg_xact_commit_timestamp(xmin) FROM events WHERE stream = $1 AND version = $2"


@dataclass(frozen=True)
class Timings:
    """The times of one command's stages, in milliseconds after its call."""

    committed: float
    """PostgreSQL committed it."""
    answered: float
    """The caller got its receipt."""
    published: float
    """JetStream stored its event."""
    visible: float
    """A query with the receipt's token answered."""


async def measure(
    receipt: Receipt,
    stream_type: str,
    database_url: str,
    nats: Connection,
    *,
    called: datetime,
    answered: datetime,
    visible: datetime,
) -> Timings:
    """Return the timings of a command whose caller recorded these times, in UTC.

    Raises:
        StartError: the command's event is missing in PostgreSQL or JetStream.
    """
    stream = streams.stream_name(stream_type, receipt.aggregate_id)
    times = (
        await _read_commit_time(database_url, stream, receipt.version),
        answered,
        await _read_publishing_time(nats, stream, receipt.version),
        visible,
    )
    return Timings(*((time - called).total_seconds() * 1000 for time in times))


async def _read_commit_time(database_url: str, stream: str, version: int) -> datetime:
    connection = await asyncpg.connect(database_url)
    try:
        time = await connection.fetchval(SELECT_COMMIT_TIME, stream, version)
    finally:
        await connection.close()
    if not isinstance(time, datetime):
        raise StartError(f"PostgreSQL has no commit time of {stream}@{version}")
    return time


async def _read_publishing_time(nats: Connection, stream: str, version: int) -> datetime:
    message = await nats.js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
    if message.time is None or (message.headers or {}).get("ce-id") != f"{stream}@{version}":
        raise StartError(f"the last event of {stream} in JetStream is not that of version {version}")
    return message.time
