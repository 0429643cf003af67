"""Sorted sets in Redis (indexes, sets of changes), looked at from their keys: is there too much in them?

Counts come first: `entries.py` has counted the members that have to be there and are. A set that has more is
looked at in full, each member beside its view.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from redis.exceptions import RedisError

from contracts.view_layout import id_of_member
from operations.verify.model import Reading
from operations.verify.report import Problem
from operations.verify.sources.read_model import ReadModel

KINDS = {"index": "indexes", "change_feed": "change_feeds"}
"""The kinds of sorted sets, and what checks them."""


async def check(
    redis: ReadModel, reading: Reading, members: Counter[str], counted: Counter[str]
) -> AsyncIterator[Problem]:
    """Yield what is in a projection's sorted sets and should not be.

    Args:
        redis: the read model.
        reading: the projection.
        members: how many members were found that have to be there, by key.
        counted: takes how many sets there are, and how many members.
    """
    for kind, name in KINDS.items():
        async for keys in redis.keys(kind, reading.view):
            counted[f"{name} sets"] += len(keys)
            for key, count in zip(keys, await redis.ask([("ZCARD", key) for key in keys]), strict=True):
                counted[name] += count if isinstance(count, int) else 0
                if count != members[key]:
                    async for problem in _in_full(redis, reading, kind, key):
                        yield problem


async def _in_full(redis: ReadModel, reading: Reading, kind: str, key: str) -> AsyncIterator[Problem]:
    subject = key if kind == "index" else f"change feed {key}"
    try:
        async for page in redis.members(key):
            for member in await _undemanded(redis, reading, kind, key, page):
                yield Problem(KINDS[kind], subject, f"it has {member}, which no view demands")
    except RedisError as error:
        yield Problem(KINDS[kind], subject, f"it is no sorted set: {error}")


async def _undemanded(
    redis: ReadModel, reading: Reading, kind: str, key: str, page: Sequence[str]
) -> Sequence[str]:
    """Return the members that no view demands; a set and a view are seen at one moment.

    Most are demanded, which a look that does not hold Redis up shows as well.
    """
    doubtful = list(page)
    for at_once in (False, True):
        views = [reading.view.key(id_of_member(member) if kind == "index" else member) for member in doubtful]
        pairs = zip(doubtful, views, strict=True)
        questions = [ask for member, view in pairs for ask in (("HGETALL", view), ("ZSCORE", key, member))]
        answers = await redis.ask(questions, at_once=at_once)
        looked = zip(doubtful, answers[::2], answers[1::2], strict=True)
        doubtful = [
            member
            for member, view, score in looked
            if score is not None and not _demands(reading, kind, key, member, view)
        ]
        if not doubtful:
            break
    return doubtful


def _demands(reading: Reading, kind: str, key: str, member: str, view: Any) -> bool:
    try:
        message = reading.view.message.FromString(view[b"data"])
    except (KeyError, TypeError, DecodeError):
        return False
    if kind == "index":
        return (key, member) in set(reading.indexes(message))
    return key in set(reading.changes(message))
