"""Tombstones in place of views, and the removal of old history entries: what housekeeping writes in Redis.

How it works. Every call compares the build, and each view's version and revision or the beginning of its
history, so a projector that writes meanwhile wins and housekeeping changes nothing. A call leaves nothing
half done.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from contracts.view_layout import View, id_of_member, index_bound
from projector.lua import read_script
from projector.projection import Entry
from projector.records import Record
from projector.redis_build import pack
from projector.redis_store import RedisStore

BATCH = 100
"""Views of one call, which takes Redis some 5 ms."""

_json = msgspec.json.Encoder().encode


class History(msgspec.Struct, frozen=True):
    """The extent of a view's history."""

    id: str
    first: int
    """The first version with an entry."""
    version: int
    """The view's version, which has the last entry."""


class RedisArchive(RedisStore):
    """Archives views of one projection; `read_build` comes first."""

    def __init__(self, redis: Redis, view: View) -> None:
        super().__init__(redis, view)
        self._archive_script = redis.register_script(read_script("types", "archive"))
        self._trim_script = redis.register_script(read_script("types", "trim_history"))

    async def is_ready(self) -> bool:
        return bool(await self._redis.exists(self._view.ready))

    async def count_archived(self) -> int:
        return int(await self._redis.get(self._view.archived) or 0)

    async def list_until(self, index: str, nanos: int) -> AsyncIterator[Sequence[str]]:
        """Yield pages of the ids of an index's members before a time, the earliest first.

        Args:
            index: its key.
            nanos: nanoseconds since 1970.
        """
        after, bound = "-", f"({index_bound(nanos)}"
        while True:
            members: Any = await self._redis.zrange(index, after, bound, bylex=True, offset=0, num=BATCH)
            if not members:
                return
            yield [id_of_member(member.decode()) for member in members]
            after = f"({members[-1].decode()}"

    async def archive(self, records: Sequence[Record], kept_indexes: Sequence[str]) -> int:
        """Replace views by tombstones, unless they have changed; return their number.

        Args:
            records: the views as they were loaded.
            kept_indexes: the names of the indexes in which they stay.

        Raises:
            BuildSuperseded: another build has begun.
        """
        prefixes = tuple(
            self._view.index(name).removesuffix("}") + end for name in kept_indexes for end in "/}"
        )
        rows = [self._pack_tombstone(record, prefixes) for record in records]
        keys = [self._view.build, self._view.archived]
        return int(self._check_current(await self._archive_script(keys=keys, args=[self._name, pack(rows)])))

    def _pack_tombstone(self, record: Record, kept_prefixes: tuple[str, ...]) -> Sequence[Any]:
        """Return the arguments of one view; `archive.lua` unpacks them."""
        kept: list[Entry] = [entry for entry in record.entries if entry[0].startswith(kept_prefixes)]
        return (
            self._view.key(record.id),
            self._view.history(record.id),
            str(record.version),
            str(record.revision),
            str(record.revision + 1),
            _json(kept).decode(),
            [entry for entry in record.entries if entry not in kept],
        )

    async def list_histories(self) -> AsyncIterator[Sequence[History]]:
        """Yield pages of the histories of all views that are not archived; one may be repeated."""
        pattern = self._view.key("").replace("{}", "*")
        async for page in self._scan(pattern):
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in page:
                    pipe.hmget(key, "version", "history_from", "archived")
                rows: Any = await pipe.execute(raise_on_error=False)
            ids = [key.decode().partition("{")[2].removesuffix("}") for key in page]
            yield [
                history
                for id_, row in zip(ids, rows, strict=True)
                if isinstance(row, list) and (history := _read_history(id_, *row)) is not None
            ]

    async def read_entries(self, places: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Return the serialised history entries of these views and versions, each None if missing."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for view_id, version in places:
                pipe.hget(self._view.history(view_id), str(version))
            replies = await pipe.execute(raise_on_error=False)
        return [reply if isinstance(reply, bytes) else None for reply in replies]

    async def trim(self, history: History, first: int) -> bool:
        """Remove the entries below a version; return whether the view allowed it.

        Raises:
            BuildSuperseded: another build has begun.
        """
        keys = [self._view.build, self._view.key(history.id), self._view.history(history.id)]
        reply = await self._trim_script(keys=keys, args=[self._name, history.first, first])
        return bool(self._check_current(reply))


def _read_history(
    view_id: str, version: bytes | None, first: bytes | None, archived: bytes | None
) -> History | None:
    """Return a view's history; None if the view is archived or cannot be read."""
    numbers = version or b"0", first or b"1"
    if archived is not None or not all(number.isdigit() for number in numbers):
        return None
    return History(view_id, int(numbers[1]), int(numbers[0]))
