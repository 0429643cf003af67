"""Sorted sets in Redis (indexes and change feeds), checked from their keys: finds unexpected members.

`view_memberships.py` has counted the correct members of each set. Only a set with another number of members
is read in full, each member together with its view.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from redis.exceptions import RedisError

from contracts.view_layout import id_of_member
from operations.verify.model import Problem, ProjectionSpec
from operations.verify.sources import RedisReader, parse_contributions

CHECKS = {"index": "indexes", "change_feed": "change_feeds"}
"""The check of each kind of sorted set."""


async def check(
    redis: RedisReader, spec: ProjectionSpec, members: Counter[str], counts: Counter[str]
) -> AsyncIterator[Problem]:
    """Yield the unexpected members of a projection's sorted sets.

    Args:
        redis: the read model.
        spec: the projection.
        members: numbers of correct members, by key.
        counts: receives the numbers of sets and of members.
    """
    for kind, name in CHECKS.items():
        async for keys in redis.scan_keys(kind, spec.view):
            counts[f"{name} sets"] += len(keys)
            sizes = await redis.execute([("ZCARD", key) for key in keys])
            for key, size in zip(keys, sizes, strict=True):
                counts[name] += size if isinstance(size, int) else 0
                if size != members[key]:
                    async for problem in _check_members(redis, spec, kind, key):
                        yield problem


async def _check_members(
    redis: RedisReader, spec: ProjectionSpec, kind: str, key: str
) -> AsyncIterator[Problem]:
    try:
        async for page in redis.scan_members(key):
            for member in await _find_unexpected(redis, spec, kind, key, page):
                yield Problem(CHECKS[kind], key, f"unexpected member {member}")
    except RedisError as error:
        yield Problem(CHECKS[kind], key, f"not a sorted set: {error}")


async def _find_unexpected(
    redis: RedisReader, spec: ProjectionSpec, kind: str, key: str, page: Sequence[str]
) -> Sequence[str]:
    """Return the members whose views do not belong in the set.

    Members are read without a transaction first, which does not block Redis; only those that seem unexpected
    are read again, atomically with their views.
    """
    suspects = list(page)
    for atomic in (False, True):
        keys = [spec.view.key(id_of_member(member) if kind == "index" else member) for member in suspects]
        pairs = zip(suspects, keys, strict=True)
        commands = [
            command for member, view in pairs for command in (("HGETALL", view), ("ZSCORE", key, member))
        ]
        replies = await redis.execute(commands, atomic=atomic)
        suspects = [
            member
            for member, view, score in zip(suspects, replies[::2], replies[1::2], strict=True)
            if score is not None and not _belongs(spec, kind, key, member, view)
        ]
        if not suspects:
            break
    return suspects


def _belongs(spec: ProjectionSpec, kind: str, key: str, member: str, view: Any) -> bool:
    if isinstance(view, dict) and b"archived" in view:  # the pass has compared a tombstone's own entries
        return kind == "change_feed" or (key, member) in (parse_contributions(view.get(b"entries")) or {})
    try:
        message = spec.view.message.FromString(view[b"data"])
    except (KeyError, TypeError, DecodeError):
        return False
    if kind == "index":
        return (key, member) in set(spec.indexes(message))
    return key in set(spec.change_feeds(message))
