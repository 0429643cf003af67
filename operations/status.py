"""The state of the whole system on one page: health checks, PostgreSQL, JetStream and Redis.

Each source is queried independently, so an unreachable server costs its own lines and no others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy import text

from contracts.view_layout import View, parse_checkpoint
from operations.processes import KINDS, explain_health
from operations.projections import list_views
from operations.server_errors import UNREACHABLE, summarize
from process_manager.deadlines.reader import count_all_deadlines
from process_manager.queries.feed_reader import FeedReader
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.saga_records import SilentTarget
from projector.redis_memory import compute_used_percent
from runtime import jetstream
from runtime.jetstream import StreamIdentity, read_stream_identity
from runtime.postgres import create_engine
from runtime.process.settings import Settings
from runtime.process.terminal import escape

TIMEOUT = 3.0
"""Seconds within which each server must respond."""

PENDING = """
SELECT count(*) AS pending, extract(epoch FROM now() - min(e.recorded_at)) AS oldest
FROM outbox o JOIN events e USING (position) WHERE o.sequence IS NULL
"""

FULL = 100
"""Percent of maxmemory from which on Redis refuses writes."""

Row = tuple[str, str]
"""A subject and its state."""


async def render(settings: Settings) -> str:
    """Return the page, a line for each subject."""
    stream = await _read_stream(settings)
    sections = await asyncio.gather(
        _check_processes(settings),
        _check_outbox(settings),
        _check_projections(settings, stream),
        check_sagas(settings),
    )
    rows = [*sections[0], *sections[1], ("stream", _describe_stream(stream)), *sections[2], *sections[3]]
    width = max(len(subject) for subject, _ in rows)
    return "\n".join(escape(f"{subject:{width}}  {state}") for subject, state in rows)


async def _check_processes(settings: Settings) -> list[Row]:
    addresses = [str(getattr(settings, kind.address)) for kind in KINDS]
    states = await asyncio.gather(*(explain_health(address, TIMEOUT) for address in addresses))
    return [
        (kind.name, f"{state} at {address}" + (f": {reason}" if reason else ""))
        for kind, (state, reason), address in zip(KINDS, states, addresses, strict=True)
    ]


async def _check_outbox(settings: Settings) -> list[Row]:
    engine = create_engine(settings.database_url)

    async def count_pending() -> str:
        async with engine.connect() as connection:
            pending, oldest = (await connection.execute(text(PENDING))).one()
        return f"{pending} pending, the oldest for {oldest:.1f} s" if pending else "nothing pending"

    try:
        return [("outbox", await _query_or_describe(count_pending, "PostgreSQL"))]
    finally:
        await engine.dispose()


async def _read_stream(settings: Settings) -> StreamIdentity | str | None:
    """Return the stream, None if there is none, or a line with the reason why NATS is unreachable."""
    connection = await jetstream.connect(settings.nats_url, "status")
    try:
        async with asyncio.timeout(TIMEOUT):
            await connection.wait_until_connected()
            return await read_stream_identity(connection.js)
    except UNREACHABLE as error:
        return f"NATS is unreachable: {summarize(error)}"
    finally:
        await connection.close()


def _describe_stream(stream: StreamIdentity | str | None) -> str:
    if isinstance(stream, str):
        return stream
    if stream is None:
        return "missing; the relay creates it"
    complete = "complete" if stream.complete else "being republished"
    return f"{stream.messages} events, last sequence {stream.last_sequence}, {complete}, epoch {stream.epoch}"


async def _check_projections(settings: Settings, stream: StreamIdentity | str | None) -> list[Row]:
    identity = stream if isinstance(stream, StreamIdentity) else None
    async with Redis.from_url(settings.redis_url, socket_timeout=TIMEOUT) as redis:

        async def describe_memory() -> str:
            return _describe_memory(await redis.info("memory"))

        async def describe(view: View) -> str:
            return await _query_or_describe(lambda: _describe_projection(redis, view, identity), "Redis")

        rows = [("redis", await _query_or_describe(describe_memory, "Redis"))]
        rows += [(view.projection, await describe(view)) for view in list_views(settings)]
        return rows


def _describe_memory(memory: Mapping[str, int]) -> str:
    used, percent = f"{memory['used_memory'] / 1e6:.0f} MB used", compute_used_percent(memory)
    if percent is None:
        return f"{used}, no maxmemory"
    return f"{used}, {percent} % of maxmemory" + ("; it refuses writes" if percent >= FULL else "")


async def _describe_projection(redis: Redis, view: View, stream: StreamIdentity | None) -> str:
    ready = await redis.exists(view.ready)
    checkpoints = [parse_checkpoint(value) for value in await redis.hvals(view.checkpoints)]
    as_of = [int(value) for value in await redis.hvals(view.as_of) if value.isdigit()]
    parked, archived = await redis.hlen(view.parked), int(await redis.get(view.archived) or 0)
    facts = ["ready" if ready else "not ready: queries answer VIEW_REBUILDING"]
    if stream is not None and checkpoints:
        last_sequence = max(sequence if epoch == stream.epoch else 0 for epoch, sequence in checkpoints)
        facts.append(f"applied up to sequence {last_sequence}")
    if as_of and not min(as_of):
        facts.append("age unknown: no relay has confirmed the stream")
    elif as_of:
        seconds, microseconds = await redis.time()  # the projector's times are Redis's
        facts.append(f"as of {seconds + microseconds / 1e6 - min(as_of) / 1000:.1f} s ago")
    facts.append(f"{parked} parked")
    if archived:
        facts.append(f"{archived} archived")
    return ", ".join(facts)


async def check_sagas(settings: Settings) -> list[Row]:
    """Return the numbers of sagas, and a row for each service that does not answer their steps."""
    engine = create_engine(settings.database_url)
    silent: list[SilentTarget] = []

    async def count_sagas() -> str:
        counts = list((await SagaReader(engine).count_open()).values())
        numbers = {
            name: sum(getattr(each, name) for each in counts)
            for name in ("open", "overdue", "blocked", "denied", "unreadable")
        }
        parked = await FeedReader(engine).count_parked_streams()
        silent.extend(await SagaReader(engine).read_silent_targets())
        parts = [f"{number} {name}" for name, number in numbers.items()]
        parts += [f"{parked} parked streams", f"{await count_all_deadlines(engine)} deadlines to come"]
        return ", ".join(parts) + " (diptych sagas list)"

    try:
        sagas = await _query_or_describe(count_sagas, "PostgreSQL")
        return [("sagas", sagas), *((each.target, _describe_silent_target(each)) for each in silent)]
    finally:
        await engine.dispose()


def _describe_silent_target(silent: SilentTarget) -> str:
    seconds = (datetime.now(UTC) - silent.since).total_seconds()
    return f"does not answer for {seconds:.0f} s, {silent.waiting} steps wait: {silent.error}"


async def _query_or_describe(query: Callable[[], Awaitable[str]], server: str) -> str:
    """Return a query's result, or a line with the reason why there is none."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await query()
    except ResponseError as error:
        return f"cannot be read: {summarize(error)}"
    except UNREACHABLE as error:
        return f"{server} is unreachable: {summarize(error)}"
