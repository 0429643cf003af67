"""Counters in Redis, compared with the sums of what the views say that they have added.

What a view adds has been compared with the fold by then. Counters that differ from the sum over the views as
they were read, one after the other, are compared again with all views of that total at one moment.
"""

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

from contracts.view_layout import id_of_member
from operations.verify.checks.views import remembered
from operations.verify.model import Reading
from operations.verify.recheck import LOOKS, PAUSE
from operations.verify.report import Problem
from operations.verify.sources.read_model import ReadModel

AT_ONCE = 5_000
"""Views that are read at one moment, which holds Redis up for some milliseconds. A total of more views is
compared while they are not written."""

Difference = dict[str, tuple[int, int]]
"""Counter to what it is and what the views have added, where these differ."""


async def check(
    redis: ReadModel,
    reading: Reading,
    sums: Counter[tuple[str, str]],
    counted: Counter[str],
    deadline: float,
) -> tuple[list[Problem], list[str]]:
    """Compare all totals of a projection.

    Args:
        redis: the read model.
        reading: the projection.
        sums: what views have added, by total key and counter.
        counted: takes how many totals and counters there are.
        deadline: until when totals are waited for that keep changing.

    Returns:
        What is wrong, and the keys of totals that could not be seen at rest.
    """
    suspects: dict[str, Any] = dict.fromkeys(await _differing(redis, reading, sums, counted))
    same: Counter[str] = Counter()
    problems: list[Problem] = []
    looks = 0
    while suspects and (looks < LOOKS or monotonic() < deadline):
        looks += 1
        for key, before in list(suspects.items()):
            now = await _difference(redis, reading, key)
            same[key] = same[key] + 1 if now == before else 1
            suspects[key] = now
            if not now[0] or same[key] == LOOKS:
                problems += _problems(key, now[0])
                del suspects[key]
        await asyncio.sleep(PAUSE if suspects else 0)
    return problems, list(suspects)


def _problems(key: str, difference: Difference) -> list[Problem]:
    return [
        Problem("counters", key, f"{name} is {found}, the views have added {added}")
        for name, (found, added) in sorted(difference.items())
    ]


async def _differing(
    redis: ReadModel, reading: Reading, sums: Counter[tuple[str, str]], counted: Counter[str]
) -> set[str]:
    """Return the keys of the totals that are not the sums."""
    expected: dict[str, dict[str, int]] = {}
    for (key, name), amount in sums.items():
        if amount and key.startswith(f"counters:{reading.name}:"):
            expected.setdefault(key, {})[name] = amount
    differing, seen = set[str](), set[str]()
    async for page in redis.keys("counters", reading.view):
        keys = list(set(page) - seen)
        seen.update(keys)
        for key, found in zip(keys, await redis.hashes(keys), strict=True):
            counted["counters"] += len(found)
            if counters(found) != expected.get(key, {}):
                differing.add(key)
    counted["counter keys"] += len(seen)
    return differing | (expected.keys() - seen)


async def _difference(redis: ReadModel, reading: Reading, key: str) -> tuple[Difference, int]:
    """Return where a total differs, and how often its views were written; 0 where that does not matter."""
    members = [member async for page in redis.members(reading.siblings(key)) for member in page]
    ids = list(dict.fromkeys(map(id_of_member, members)))
    added: Counter[str] = Counter()
    kept: dict[str, int] = {}
    written = 0
    for start in range(0, len(ids) or 1, AT_ONCE):
        views = [reading.view.key(view_id) for view_id in ids[start : start + AT_ONCE]]
        questions = [("HMGET", view, "revision", "counted") for view in views]
        *answers, total = await redis.ask([*questions, ("HGETALL", key)], at_once=True)
        kept = counters(total)
        for revision, amounts in answers:
            written += int(revision or 0)
            for (owner, name), amount in (remembered(amounts) or {}).items():
                added[name] += amount if owner == key else 0
    difference = {
        name: (kept.get(name, 0), added[name])
        for name in {*added, *kept}
        if kept.get(name) != (added[name] or None)  # one that is 0 is not there
    }
    return difference, written if len(ids) > AT_ONCE else 0


def counters(found: Any) -> dict[str, int]:
    """Return a hash of counters; what is no number, or 0, is as wrong as a number that no sum is."""
    values = (
        {name.decode(): value.decode() for name, value in found.items()} if isinstance(found, dict) else {}
    )
    return {name: int(value) if value.lstrip("-").isdecimal() else -1 for name, value in values.items()}
