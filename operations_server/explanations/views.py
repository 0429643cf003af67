"""Reads the views of a stream: the version of each, or the error at which it is parked."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from contracts import streams
from contracts.generations import read_serving
from contracts.view_layout import View

UNREADABLE = (RedisError, OSError, TimeoutError)
"""The errors of `ViewReader.read` while Redis is away, frozen or slow."""
TIMEOUT = 1.5
"""Seconds for the views of one stream."""
_FIELDS = ("version", "parked", "archived")


@dataclass(frozen=True, slots=True)
class ViewState:
    """A view of a stream."""

    projection: str
    ready: bool
    """Whether the projection has caught up, so that its views are served."""
    version: int
    """0 if there is no view."""
    archived: bool
    parked_version: int = 0
    """The version of the event that cannot be applied; 0 if the view is not parked."""
    parked_error: str = ""
    parked_since: datetime | None = None


class _Parked(msgspec.Struct):
    """The fields of a parked aggregate's record that are shown."""

    stream: str = ""
    version: int = 0
    error: str = ""
    since: int = 0


class ViewReader:
    """Reads the views of aggregates from Redis.

    Args:
        redis: the connections.
        views: the layouts of all views.
    """

    def __init__(self, redis: Redis, views: Iterable[View]) -> None:
        self._redis = redis
        self._views = list(views)

    async def read(self, stream: str) -> Sequence[ViewState]:
        """Return the state of each view of a stream.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be read.
        """
        chosen = [each for each in self._views if streams.stream_type(stream) in each.source_streams]
        if not chosen:
            return []
        id_ = streams.aggregate_id(stream)
        async with asyncio.timeout(TIMEOUT), self._redis.pipeline(transaction=False) as pipeline:
            views = await read_serving(self._redis, chosen)
            for view in views:
                pipeline.exists(view.ready)
                pipeline.hmget(view.key(id_), *_FIELDS)
            replies = await pipeline.execute(raise_on_error=False)
        for reply in replies[::2]:
            if isinstance(reply, Exception):
                raise reply
        return [
            _read_state(view, bool(ready), values)
            for view, ready, values in zip(views, replies[::2], replies[1::2], strict=True)
        ]


def _read_state(view: View, ready: bool, values: object) -> ViewState:
    if not isinstance(values, list):  # another type of key is in the place of the view
        return ViewState(view.projection, ready, 0, False, parked_error=str(values))
    version, parked, archived = values
    number = int(version) if version is not None and version.isdigit() else 0
    state = ViewState(view.projection, ready, number, archived is not None)
    if parked is None:
        return state
    try:
        record = msgspec.json.decode(parked, type=_Parked)
        since = datetime.fromtimestamp(record.since / 1000, UTC)
    except (msgspec.MsgspecError, ValueError, OverflowError, OSError) as error:
        record, since = _Parked(error=f"the record of the failure cannot be read: {error}"), None
    return ViewState(
        view.projection,
        ready,
        number,
        archived is not None,
        record.version or number + 1,
        record.error or "its earlier events are read",
        since,
    )
