"""The version of a stream at a time, and the errors of times and versions that it has not had."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial

from operations_server.names import format_time
from operations_server.records.database import Database
from runtime.grpc.rpc_error import RpcError

FIND_LAST = """
SELECT version, recorded_at, clock_timestamp() AS now FROM events WHERE stream = $1
ORDER BY version DESC LIMIT 1
"""
READ_NOW_AND_FIRST = """
SELECT clock_timestamp(), (SELECT recorded_at FROM events ORDER BY position LIMIT 1)
"""
NO_FACTS: Mapping[str, str] = {}
READ_TIME_OF_VERSION = "SELECT recorded_at FROM events WHERE stream = $1 AND version = $2"


async def find_version(
    database: Database, stream: str, version: int, time: datetime | None
) -> tuple[int, datetime]:
    """Return the version of a stream that is named, and its time.

    Args:
        database: has the events.
        stream: its name.
        version: 0 for the latest one.
        time: None for now. With a version as well, the earlier of the two counts.

    Raises:
        RpcError: `STREAM_NOT_FOUND`, `VERSION_NOT_REACHED`, `TIME_IN_FUTURE` or `BEFORE_FIRST_EVENT`.
    """
    rows = await database.fetch(FIND_LAST, stream)
    if not rows:
        raise RpcError.not_found("operations", "STREAM_NOT_FOUND", {"stream": stream})
    ((last, recorded_at, now),) = rows
    check_reached(stream, version, last)
    found = version or last
    async with database.connect() as driver:
        read_time = partial(driver.fetchval, READ_TIME_OF_VERSION, stream)
        if time is not None:
            check_not_future(time, now)
            found = min(found, await bisect_version(read_time, last, time))
            if not found:
                raise refuse_early(time, await read_time(1), {"stream": stream})
        if found < last:
            recorded_at = await read_time(found)
    return found, recorded_at


async def check_time(database: Database, time: datetime) -> None:
    """Check that a time is neither later than now nor before the first of all events.

    Raises:
        RpcError: `TIME_IN_FUTURE` or `BEFORE_FIRST_EVENT`.
    """
    ((now, first),) = await database.fetch(READ_NOW_AND_FIRST)
    check_not_future(time, now)
    if first is not None and time < first:
        raise refuse_early(time, first)


def check_not_future(time: datetime, now: datetime) -> None:
    """Check a time.

    Raises:
        RpcError: `TIME_IN_FUTURE`.
    """
    if time > now:
        facts = {"time": format_time(time), "now": format_time(now)}
        raise RpcError.of_rule("operations", "TIME_IN_FUTURE", facts)


def check_reached(stream: str, version: int, latest: int) -> None:
    """Check a version of a stream.

    Raises:
        RpcError: `VERSION_NOT_REACHED`.
    """
    if version > latest:
        facts = {"stream": stream, "version": str(version), "latest": str(latest)}
        raise RpcError.of_rule("operations", "VERSION_NOT_REACHED", facts)


def refuse_early(time: datetime, first: datetime | None, facts: Mapping[str, str] = NO_FACTS) -> RpcError:
    """Return the error for a time before the first event, whose own time may be unknown."""
    times = {"time": format_time(time), **({"first": format_time(first)} if first is not None else {})}
    return RpcError.of_rule("operations", "BEFORE_FIRST_EVENT", {**facts, **times})


async def bisect_version(
    read_time: Callable[[int], Awaitable[datetime | None]], latest: int, time: datetime
) -> int:
    """Return the last version of a stream that was recorded by a time; 0 if there is none.

    Times rise with versions, except beside an event that a wrong clock has recorded.

    Args:
        read_time: returns the time of a version; None if it is missing.
        latest: the stream's last version.
        time: the time.
    """
    reached, beyond = 0, latest + 1
    while beyond - reached > 1:
        middle = (reached + beyond) // 2
        recorded_at = await read_time(middle)
        if recorded_at is not None and recorded_at <= time:
            reached = middle
        else:
            beyond = middle
    return reached
