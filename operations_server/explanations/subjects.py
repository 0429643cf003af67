"""The subject of an explanation (aggregates, an event or a request), and its moment, a version or a time."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from contracts import streams
from operations_server.explanations.record_reader import RecordReader, is_uuid
from operations_server.records.versions import check_reached, refuse_early
from runtime.grpc.rpc_error import RpcError

_STREAM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{1,64}")
_EVENT = re.compile(rf"({_STREAM.pattern})@([1-9][0-9]{{0,17}})")


@dataclass(frozen=True, slots=True)
class Subject:
    """The parts that a text may name."""

    streams: Sequence[str] = ()
    event: tuple[str, int] | None = None
    """Stream and version."""
    request_id: str = ""


def parse_subject(text: str, stream_types: Collection[str]) -> Subject:
    """Return the parts that a text names: an id may be that of several aggregates, and of a request."""
    if event := _EVENT.fullmatch(text):
        return Subject(event=(event[1], int(event[2])))
    if _STREAM.fullmatch(text):
        return Subject(streams=(text,))
    if not streams.VALID_ID.fullmatch(text):
        return Subject()
    names = tuple(streams.stream_name(each, text) for each in stream_types)
    return Subject(names, request_id=text.lower() if is_uuid(text) else "")


def read_request_time(request_id: str) -> datetime | None:
    """Return the time that a request id carries: one of version 7 does."""
    value = UUID(request_id)
    try:
        return datetime.fromtimestamp((value.int >> 80) / 1000, UTC) if value.version == 7 else None
    except (ValueError, OverflowError):  # beyond the calendar
        return None


@dataclass(frozen=True, slots=True)
class Moment:
    """The version or time as of which something is explained."""

    version: int = 0
    """Of the aggregate; 0 for the latest one."""
    time: datetime | None = None
    """None for now."""


def read_moment(request: Any) -> Moment:
    """Return the moment of a request.

    Raises:
        RpcError: `REQUEST_INVALID`.
    """
    if not request.HasField("time"):
        return Moment(request.version)
    try:
        return Moment(request.version, request.time.ToDatetime(UTC))
    except (ValueError, OverflowError):
        violations = {"time": "is not a time of the years 1 to 9999"}
        raise RpcError("REQUEST_INVALID", "time: not a time", violations=violations) from None


def check_not_before(moment: Moment, name: str, recorded_at: datetime) -> None:
    """Check that something had happened by a moment.

    Raises:
        RpcError: `BEFORE_FIRST_EVENT`.
    """
    if moment.time is not None and recorded_at > moment.time:
        raise refuse_early(moment.time, recorded_at, {"subject": name})


async def find_version(records: RecordReader, stream: str, latest: int, moment: Moment) -> int:
    """Return the version of a stream as of a moment.

    Raises:
        RpcError: `BEFORE_FIRST_EVENT`, `VERSION_NOT_REACHED`.
    """
    check_reached(stream, moment.version, latest)
    version = latest
    if moment.time is not None:
        version = await records.find_version(stream, latest, moment.time)
        if not version:
            raise refuse_early(moment.time, await records.read_time(stream, 1), {"stream": stream})
    return min(version, moment.version or version)
