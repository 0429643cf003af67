"""Event counters in Redis against the sums of the events' contributions.

Event counters only grow, in the same write as a view's version. So the events that the views include
contribute no less than the counters held before the views were read, and no more than they hold afterwards;
in a system at rest, exactly that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from operations.verify.model import Problem, ProjectionSpec
from operations.verify.sources import RedisReader, parse_counters


@dataclass(frozen=True)
class CounterSnapshot:
    """The event counters of a projection at one time."""

    build: tuple[object, object]
    """Ready marker and build."""
    counters: Mapping[tuple[str, str], int]
    """By (event counters key, counter)."""


async def read_counters(redis: RedisReader, spec: ProjectionSpec) -> CounterSnapshot:
    build = await redis.read_build(spec.view)
    counters: dict[tuple[str, str], int] = {}
    async for keys in redis.scan_keys("event_counters", spec.view):
        for key, fields in zip(keys, await redis.read_hashes(keys), strict=True):
            counters |= {(key, name): count for name, count in parse_counters(fields).items()}
    return CounterSnapshot(build, counters)


def compare(
    before: CounterSnapshot, after: CounterSnapshot, sums: Mapping[tuple[str, str], int]
) -> Iterator[Problem]:
    """Yield the counters that do not match the sums of contributions.

    Args:
        before: read before the views.
        after: read after the views, in the same build.
        sums: contributions of the events that the views include, by (event counters key, counter).
    """
    for counter in sorted({*before.counters, *after.counters, *sums}):
        sum_ = sums.get(counter, 0)
        if not before.counters.get(counter, 0) <= sum_ <= after.counters.get(counter, 0):
            key, name = counter
            value = after.counters.get(counter, "missing")
            yield Problem("event_counters", key, f"{name} is {value}, the events contribute {sum_}")
