"""Counters that only grow, compared with sums over the events.

They grow in the same write as a view's version. So what views have heard that are read between two looks at a
counter comes to no less than the first look saw, and to no more than the second: at rest, exactly to that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from operations.verify.checks.view_counters import counters
from operations.verify.model import Reading
from operations.verify.report import Problem
from operations.verify.sources.read_model import ReadModel


@dataclass(frozen=True)
class Look:
    """The tallies of a projection as they were for a moment."""

    filling: tuple[object, object]
    counters: Mapping[tuple[str, str], int]
    """By tally key and counter."""


async def look(redis: ReadModel, reading: Reading) -> Look:
    """Return a projection's tallies."""
    filling = await redis.filling(reading.view)
    found: dict[tuple[str, str], int] = {}
    async for keys in redis.keys("event_counters", reading.view):
        for key, tally in zip(keys, await redis.hashes(keys), strict=True):
            found |= {(key, name): count for name, count in counters(tally).items()}
    return Look(filling, found)


def compare(before: Look, after: Look, sums: Mapping[tuple[str, str], int]) -> Iterator[Problem]:
    """Yield which counters are not what the events come to.

    Args:
        before: a look from before the views were read.
        after: one from after that, in the same filling.
        sums: what the events that the views had heard add to each counter.
    """
    for place in sorted({*before.counters, *after.counters, *sums}):
        sum_ = sums.get(place, 0)
        if not before.counters.get(place, 0) <= sum_ <= after.counters.get(place, 0):
            key, name = place
            is_ = after.counters.get(place, "not there")
            yield Problem("event_counters", key, f"{name} is {is_}, the events come to {sum_}")
