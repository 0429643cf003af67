"""The version of a stream at a time, and the errors of times and versions that it has not had."""

from datetime import UTC, datetime
from typing import Any

from operations_server.records.database import Database, Driver
from operations_server.records.event_filter import read_time
from runtime.grpc.rpc_error import RpcError

FIND_LAST = """
SELECT version, recorded_at, clock_timestamp() AS now FROM events WHERE stream = $1
ORDER BY version DESC LIMIT 1
"""
READ_TIME_OF_VERSION = "SELECT recorded_at FROM events WHERE stream = $1 AND version = $2"


async def find_version(database: Database, request: Any) -> tuple[int, datetime]:
    """Return the version that a request with `stream`, `version` and `time` names, and its time.

    Raises:
        RpcError: `STREAM_NOT_FOUND`, `VERSION_NOT_REACHED`, `TIME_IN_FUTURE` or `BEFORE_FIRST_EVENT`.
    """
    rows = await database.fetch(FIND_LAST, request.stream)
    if not rows:
        raise RpcError.not_found("operations", "STREAM_NOT_FOUND", {"stream": request.stream})
    ((last, recorded_at, now),) = rows
    if request.version > last:
        facts = {"stream": request.stream, "version": str(request.version), "last": str(last)}
        raise RpcError.of_rule("operations", "VERSION_NOT_REACHED", facts)
    version = request.version or last
    async with database.connect() as driver:
        if (time := read_time(request, "time")) is not None:
            if time > now:
                facts = {"time": time.isoformat(), "now": now.astimezone(UTC).isoformat()}
                raise RpcError.of_rule("operations", "TIME_IN_FUTURE", facts)
            version = min(version, await _find_version_at(driver, request.stream, last, time))
        if not version:
            first = await _read_time(driver, request.stream, 1)
            facts = {"stream": request.stream, "time": str(time), "first_event_time": first.isoformat()}
            raise RpcError.of_rule("operations", "BEFORE_FIRST_EVENT", facts)
        if version < last:
            recorded_at = await _read_time(driver, request.stream, version)
    return version, recorded_at


async def _find_version_at(driver: Driver, stream: str, last: int, time: datetime) -> int:
    """Return the last version of a stream that was recorded by a time; 0 if there is none.

    Times rise with versions, except beside an event that a wrong clock has recorded.
    """
    reached, beyond = 0, last + 1
    while beyond - reached > 1:
        middle = (reached + beyond) // 2
        if await _read_time(driver, stream, middle) <= time:
            reached = middle
        else:
            beyond = middle
    return reached


async def _read_time(driver: Driver, stream: str, version: int) -> datetime:
    time: datetime = await driver.fetchval(READ_TIME_OF_VERSION, stream, version)
    return time
