"""Reads Redis: pipelines of commands, and keys and members in pages."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from contracts.generations import decode_serving
from contracts.view_layout import View, parse_checkpoint
from operations.verify.spool import SPOOLED_ITEMS, SpooledHash
from runtime.redis.pool import open_client

SCAN_COUNT = 1_000
"""Keys, or members of a set, in one page."""
TIMEOUT = 10.0
"""Seconds for one pipeline, and for connecting."""

Command = tuple[Any, ...]
Checkpoints = Mapping[int, tuple[str, int]]
"""A projection's checkpoints: partition to epoch and sequence."""

_decode_rows = msgspec.json.Decoder(list[list[str]]).decode


class RedisReader:
    """Read-only access to the views and everything derived from them."""

    def __init__(self, url: str) -> None:
        self._redis = open_client(url, socket_connect_timeout=TIMEOUT)
        self.other_types: dict[str, str] = {}
        """The keys that `read_hashes` found to be of another type, with the errors of Redis."""

    async def close(self) -> None:
        await self._redis.aclose()

    async def execute(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """Return the replies to commands; a reply may be an exception.

        Args:
            commands: each a name and its arguments.
            atomic: run all of them in one MULTI transaction.
        """
        if not commands:
            return []
        async with self._redis.pipeline(transaction=atomic) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            async with asyncio.timeout(TIMEOUT):  # redis-py's timeout applies to each reply and costs more
                return await pipe.execute(raise_on_error=False)

    async def read_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """Return one hash for each key; empty where the key is missing or of another type."""
        replies = await self.execute([("HGETALL", key) for key in keys])
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, RedisError):
                self.other_types[key] = str(reply)
        return [reply if isinstance(reply, dict) else {} for reply in replies]

    async def read_large_hashes(self, keys: Sequence[str]) -> list[Mapping[bytes, bytes]]:
        """Return one hash for each key; those with many fields are in files.

        Fields that are added meanwhile may be missing. All others are there if none is removed or changed.
        """
        sizes = await self.execute([("HLEN", key) for key in keys])
        hashes = dict[str, Mapping[bytes, bytes]]()
        small = []
        for key, size in zip(keys, sizes, strict=True):
            if isinstance(size, int) and size >= SPOOLED_ITEMS:
                hashes[key] = await self._spool_hash(key, size)
            else:
                small.append(key)
        hashes |= zip(small, await self.read_hashes(small), strict=True)
        return [hashes[key] for key in keys]

    async def _spool_hash(self, key: str, size: int) -> SpooledHash:
        spooled, cursor = SpooledHash(size), -1
        while cursor:
            page: Any
            cursor, page = await self._redis.hscan(key, max(cursor, 0), count=SCAN_COUNT)
            spooled.add(page.items())
        return spooled

    async def read_scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the scores of (key, member) pairs; None where the member is missing."""
        scores: dict[str, dict[str, float | None]] = {}
        for key, member in pairs:
            scores.setdefault(key, {})[member] = None
        replies = await self.execute([("ZMSCORE", key, *members) for key, members in scores.items()])
        for members, reply in zip(scores.values(), replies, strict=True):
            if isinstance(reply, list):
                members.update(zip(members, reply, strict=True))
        return [scores[key][member] for key, member in pairs]

    async def read_serving(self, views: Sequence[View]) -> list[str]:
        """Return the generation that serves of each projection."""
        replies = await self.execute([("GET", view.serving) for view in views])
        return [decode_serving(reply) for reply in replies]

    async def read_checkpoints(self, view: View) -> Checkpoints:
        (fields,) = await self.read_hashes([view.checkpoints])
        return {
            int(partition): parse_checkpoint(value)
            for partition, value in fields.items()
            if partition.isdigit()
        }

    async def read_build(self, view: View) -> tuple[Any, Any]:
        """Return a projection's ready marker and its build, read atomically."""
        ready, build = await self.execute([("GET", view.ready), ("GET", view.build)], atomic=True)
        return ready, build

    async def scan_keys(self, kind: str, view: View) -> AsyncIterator[Sequence[str]]:
        """Yield a projection's keys of a kind (view, index, ...) in pages; a key may be repeated."""
        cursor = -1
        while cursor:
            cursor, page = await self._redis.scan(
                max(cursor, 0), match=f"{kind}:{view.projection}:{view.generation}:*", count=SCAN_COUNT
            )
            if page:
                yield [_to_text(key) for key in page]

    async def scan_all(self, pattern: str) -> Sequence[str]:
        """Return all keys that match a pattern."""
        return sorted({_to_text(key) async for key in self._redis.scan_iter(pattern, count=SCAN_COUNT)})

    async def scan_members(self, key: str) -> AsyncIterator[Sequence[str]]:
        """Yield a sorted set's members in pages; a member may be repeated.

        Raises:
            RedisError: the key is not a sorted set.
        """
        cursor = -1
        while cursor:
            cursor, page = await self._redis.zscan(key, max(cursor, 0), count=SCAN_COUNT)
            if page:
                yield [_to_text(member) for member, _ in page]


def parse_id(key: str) -> str:
    """Return the part of a key in braces."""
    return key.partition("{")[2].removesuffix("}")


def parse_contributions(value: bytes | None) -> dict[tuple[str, str], int] | None:
    """Parse the field `entries`, `contributions` or `counted` of a view's hash.

    Returns:
        1 for each [key, member], the number for each [key, counter, digits]; None where the field is invalid.
    """
    try:
        rows = _decode_rows(value) if value else ()
        return {(key, name): int(*amount) if amount else 1 for key, name, *amount in rows}
    except (msgspec.DecodeError, TypeError, ValueError):
        return None


def parse_counters(fields: Any) -> dict[str, int]:
    """Parse a hash of counters; a value that is not a number becomes -1."""
    if not isinstance(fields, dict):
        return {}
    values = {name.decode(): value.decode() for name, value in fields.items()}
    return {name: int(value) if value.lstrip("-").isdecimal() else -1 for name, value in values.items()}


def _to_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
