"""Pages of parked aggregates over all projections, the longest waiting first.

How it works. Each projection has, in the generation that serves, a sorted set of its parked aggregates,
scored by the time up to which the view includes all events. A page merges the sets, in the order (time,
projection, id). It begins after the last entry of the previous page, found by its rank in each set, so that
no page reads the earlier ones.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from heapq import merge
from typing import Any

import msgspec
from redis.asyncio import Redis

from contracts.generations import read_serving
from contracts.view_layout import View
from projector.records import Parked

Position = tuple[float, str, str]
"""A position in the list: the time in milliseconds since 1970 (0 if unknown), the projection, and the id."""
Entry = tuple[Position, Parked]
READ_SIZE = 200
"""Entries that are read at once."""

_read_parked = msgspec.json.Decoder(Parked).decode


class ParkedList:
    """Reads the parked aggregates of projections.

    Args:
        redis: the connection.
        views: of the projections.
    """

    def __init__(self, redis: Redis, views: Sequence[View]) -> None:
        self._redis = redis
        self._views = {view.projection: view for view in views}

    async def find(self, projections: Sequence[str], id_: str) -> list[Entry]:
        """Return the entries of one id, in the order of the projections' names."""
        entries = []
        for name, view in sorted((await self._read_serving(projections)).items()):
            record: Any = await self._redis.hget(view.parked, id_)
            if record is not None:
                entries.append(((0.0, name, id_), _decode(record)))
        return entries

    async def read_after(self, projections: Sequence[str], after: Position | None) -> AsyncGenerator[Entry]:
        """Yield the entries after a position in order, READ_SIZE of each projection at once."""
        views = await self._read_serving(projections)
        starts = {name: await self._find_start(view, after) for name, view in views.items()}
        while starts:
            pages = {name: await self._read_positions(views[name], start) for name, start in starts.items()}
            # Beyond the last entry of a full page, its projection may have earlier entries than the others.
            limits = [page[-1] for page in pages.values() if len(page) == READ_SIZE]
            limit = min(limits, default=None)
            positions = [each for each in merge(*pages.values()) if limit is None or each <= limit]
            for entry in await self._load(views, positions):
                yield entry
            taken = {name: sum(each[1] == name for each in positions) for name in starts}
            starts = {
                name: start + taken[name]
                for name, start in starts.items()
                if limit is not None and (len(pages[name]) == READ_SIZE or taken[name] < len(pages[name]))
            }

    async def _read_serving(self, projections: Sequence[str]) -> dict[str, View]:
        """Return the views in the generations that serve, by projection."""
        views = await read_serving(self._redis, [self._views[name] for name in projections])
        return {view.projection: view for view in views}

    async def _read_positions(self, view: View, start: int) -> list[Position]:
        key, end = view.parked_since, start + READ_SIZE - 1
        members: Any = await self._redis.zrange(key, start, end, withscores=True)
        return [(score, view.projection, member.decode(errors="replace")) for member, score in members]

    async def _load(self, views: Mapping[str, View], positions: Sequence[Position]) -> list[Entry]:
        """Return the entries of positions, without those that are not parked any more."""
        if not positions:
            return []
        pipeline: Any = self._redis.pipeline(transaction=False)
        for _, name, id_ in positions:
            pipeline.hget(views[name].parked, id_)
        records = await pipeline.execute()
        return [
            (position, _decode(record))
            for position, record in zip(positions, records, strict=True)
            if record is not None
        ]

    async def _find_start(self, view: View, after: Position | None) -> int:
        """Return the number of entries of a projection up to a position."""
        if after is None:
            return 0
        name, key, (score, last_name, last_id) = view.projection, view.parked_since, after
        if name != last_name:
            bound: str | float = score if name < last_name else f"({score}"
            return int(await self._redis.zcount(key, "-inf", bound))
        # Among those of the same time, the ids are in order.
        low = int(await self._redis.zcount(key, "-inf", f"({score}"))
        high = int(await self._redis.zcount(key, "-inf", score))
        while low < high:
            middle = (low + high) // 2
            found: Any = await self._redis.zrange(key, middle, middle)
            if found and found[0].decode(errors="replace") <= last_id:
                low = middle + 1
            else:
                high = middle
        return low


def _decode(record: bytes) -> Parked:
    try:
        return _read_parked(record)
    except ValueError as error:
        return Parked("", 0, f"the record of the failure cannot be read: {error}", 0, 0, None, "parked")


def encode_position(position: Position) -> str:
    return msgspec.json.encode(position).decode()


def decode_position(text: str) -> Position:
    """Return a position.

    Raises:
        ValueError: the text is none.
    """
    position: Position = msgspec.json.decode(text, type=Position)
    return position
