"""Redis as verify reads it: pipelines of reads, pages of keys. Nothing is written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import Redis

from contracts.view_layout import View

SCAN = 1_000
"""Keys, or members of a set, in one page."""

PATIENCE = 10.0
"""Seconds that Redis has to answer."""

Command = tuple[Any, ...]


class ReadModel:
    """What the projectors have written."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_connect_timeout=PATIENCE)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ask(self, commands: Sequence[Command], *, at_once: bool = False) -> list[Any]:
        """Return the answers to commands; an answer may be an error.

        Args:
            commands: each a name and its arguments.
            at_once: whether nothing may change between them.
        """
        if not commands:
            return []
        async with self._redis.pipeline(transaction=at_once) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            async with asyncio.timeout(PATIENCE):  # redis-py's own is one for each answer, and costs more
                return await pipe.execute(raise_on_error=False)

    async def hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """Return hashes; empty ones for keys that are something else."""
        found = await self.ask([("HGETALL", key) for key in keys])
        return [answer if isinstance(answer, dict) else {} for answer in found]

    async def scores(self, places: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the scores of (key, member) in sorted sets; None where a member is not in its set."""
        members: dict[str, dict[str, float | None]] = {}
        for key, member in places:
            members.setdefault(key, {})[member] = None
        answers = await self.ask([("ZMSCORE", key, *asked) for key, asked in members.items()])
        for asked, answer in zip(members.values(), answers, strict=True):
            if isinstance(answer, list):
                asked.update(zip(asked, answer, strict=True))
        return [members[key][member] for key, member in places]

    async def progress(self, view: View) -> dict[int, tuple[str, int]]:
        """Return a projection's progress, partition to epoch and sequence."""
        (found,) = await self.hashes([view.checkpoints])
        places = {int(partition): value.decode().partition("/") for partition, value in found.items()}
        return {partition: (epoch, int(at or 0)) for partition, (epoch, _, at) in places.items()}

    async def filling(self, view: View) -> tuple[Any, Any]:
        """Return a projection's presence mark and the name of its filling, as of one moment."""
        present, fill = await self.ask([("GET", view.ready), ("GET", view.build)], at_once=True)
        return present, fill

    async def keys(self, kind: str, view: View) -> AsyncIterator[Sequence[str]]:
        """Yield a projection's keys of a kind (view, index, ...) in pages; one may come twice."""
        cursor = -1
        while cursor:
            cursor, page = await self._redis.scan(
                max(cursor, 0), match=f"{kind}:{view.projection}:{view.generation}:*", count=SCAN
            )
            if page:
                yield [_text(key) for key in page]

    async def members(self, key: str) -> AsyncIterator[Sequence[str]]:
        """Yield a sorted set's members in pages; one may come twice."""
        cursor = -1
        while cursor:
            cursor, page = await self._redis.zscan(key, max(cursor, 0), count=SCAN)
            if page:
                yield [_text(member) for member, _ in page]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def id_of(key: str) -> str:
    """Return what stands in the braces of a key."""
    return key.partition("{")[2].removesuffix("}")
