"""How everything is, on one page, from the sources themselves: health checks, PostgreSQL, JetStream, Redis.

Each part is asked on its own, so that a server that is away costs its own line and no other.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from redis.asyncio import Redis
from sqlalchemy import text

from contracts.view_layout import View
from operations.processes import KINDS, check_health
from operations.projections import VIEWS
from operations.unreachable import AWAY, why
from process_manager.saga_reader import SagaReader
from runtime import jetstream
from runtime.jetstream import StreamIdentity, stream_identity
from runtime.postgres import create_engine
from runtime.process.settings import Settings

PATIENCE = 3.0
"""Seconds that each server has to answer."""

PENDING = """
SELECT count(*) AS pending, extract(epoch FROM now() - min(e.recorded_at)) AS oldest
FROM outbox o JOIN events e USING (position) WHERE o.sequence IS NULL
"""

Row = tuple[str, str]
"""What it is about, and how that is."""


async def page(settings: Settings) -> str:
    """Return the page."""
    stream = await _stream(settings)
    sections = await asyncio.gather(
        _processes(settings), _outbox(settings), _projections(settings, stream), _sagas(settings)
    )
    rows = [*sections[0], *sections[1], ("stream", _said_of(stream)), *sections[2], *sections[3]]
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:{width}}  {how}" for what, how in rows)


async def _processes(settings: Settings) -> list[Row]:
    addresses = [str(getattr(settings, kind.address)) for kind in KINDS]
    answers = await asyncio.gather(*(check_health(address, PATIENCE) for address in addresses))
    return [
        (kind.name, f"{answer} at {address}")
        for kind, answer, address in zip(KINDS, answers, addresses, strict=True)
    ]


async def _outbox(settings: Settings) -> list[Row]:
    engine = create_engine(settings.database_url)

    async def ask() -> str:
        async with engine.connect() as connection:
            pending, oldest = (await connection.execute(text(PENDING))).one()
        return f"{pending} pending, the oldest for {oldest:.1f} s" if pending else "nothing pending"

    try:
        return [("outbox", await _or_why_not(ask, "PostgreSQL"))]
    finally:
        await engine.dispose()


async def _stream(settings: Settings) -> StreamIdentity | str | None:
    """Return the stream, None where there is none, or why nobody knows."""
    connection = await jetstream.connect(settings.nats_url, "status")
    try:
        async with asyncio.timeout(PATIENCE):
            await connection.ready()
            return await stream_identity(connection.js)
    except AWAY as error:
        return f"NATS is away: {why(error)}"
    finally:
        await connection.close()


def _said_of(stream: StreamIdentity | str | None) -> str:
    if isinstance(stream, str):
        return stream
    if stream is None:
        return "there is none; the relay makes it"
    complete = "complete" if stream.complete else "being republished"
    return f"{stream.messages} events, last sequence {stream.last_sequence}, {complete}, epoch {stream.epoch}"


async def _projections(settings: Settings, stream: StreamIdentity | str | None) -> list[Row]:
    known = stream if isinstance(stream, StreamIdentity) else None
    async with Redis.from_url(settings.redis_url, socket_timeout=PATIENCE) as redis:
        return [
            (view.projection, await _or_why_not(lambda view=view: _projection(redis, view, known), "Redis"))  # type: ignore[misc]
            for view in VIEWS
        ]


async def _projection(redis: Redis, view: View, stream: StreamIdentity | None) -> str:
    present = await redis.exists(view.ready)
    progress = [_place(value) for value in await redis.hvals(view.checkpoints)]
    as_of = [int(value) for value in await redis.hvals(view.as_of)]
    parked = await redis.hlen(view.parked)
    said = ["present" if present else "not present: queries answer VIEW_REBUILDING"]
    if stream is not None and progress:
        reached = max(sequence if epoch == stream.epoch else 0 for epoch, sequence in progress)
        said.append(f"applied up to sequence {reached}")
    if as_of:
        said.append(f"as of {datetime.now(UTC).timestamp() - min(as_of) / 1000:.1f} s ago")
    said.append(f"{parked} parked")
    return ", ".join(said)


async def _sagas(settings: Settings) -> list[Row]:
    engine = create_engine(settings.database_url)

    async def ask() -> str:
        counts = await SagaReader(engine).counts()
        open_, overdue, troubled = (sum(column) for column in zip((0, 0, 0), *counts.values(), strict=True))
        return f"{open_} open, {overdue} overdue, {troubled} in need of an operator (diptych sagas list)"

    try:
        return [("sagas", await _or_why_not(ask, "PostgreSQL"))]
    finally:
        await engine.dispose()


def _place(value: bytes | str) -> tuple[str, int]:
    """Return the epoch and the sequence that a partition has come to."""
    epoch, _, sequence = (value.decode() if isinstance(value, bytes) else value).partition("/")
    return epoch, int(sequence)


async def _or_why_not(ask: Callable[[], Awaitable[str]], server: str) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            return await ask()
    except AWAY as error:
        return f"{server} is away: {why(error)}"
