"""Counters in Redis against the sums of the views' contributions.

How it works. `views.py` has compared each view's contributions with the fold, and `view_memberships.py` has
added them up. A key whose counters differ from these sums is only suspect, because the views were read one
after the other. `check` reads each suspect again, together with all views in the index of its contributors,
in one transaction. A key with more than ATOMIC_VIEWS contributors needs several transactions. Such a result
counts as equal to the previous one only if no contributor was written in between, which the sum of their
revisions shows. After CONFIRMATIONS equal results the difference is drift.
"""

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from contracts.view_layout import id_of_member
from operations.verify.model import Problem, ProjectionSpec
from operations.verify.recheck import CONFIRMATIONS, RECHECK_INTERVAL
from operations.verify.sources import RedisReader, parse_contributions, parse_counters

ATOMIC_VIEWS = 5_000
"""Views that one transaction reads; it blocks Redis for some milliseconds."""

Difference = dict[str, tuple[int, int]]
"""Counter to (value, sum of contributions), for the counters where these differ."""


async def check(
    redis: RedisReader,
    spec: ProjectionSpec,
    sums: Counter[tuple[str, str]],
    counts: Counter[str],
    deadline: float,
) -> tuple[list[Problem], list[str]]:
    """Compare all counters of a projection.

    Args:
        redis: the read model.
        spec: the projection.
        sums: contributions of the views, by (counters key, counter).
        counts: receives the numbers of keys and counters.
        deadline: of `time.monotonic`, for keys that keep changing.

    Returns:
        The problems, and the keys that changed during every check.
    """
    suspects: dict[str, Any] = dict.fromkeys(await _find_suspects(redis, spec, sums, counts))
    confirmations: Counter[str] = Counter()
    problems: list[Problem] = []
    rounds = 0
    while suspects and (rounds < CONFIRMATIONS or monotonic() < deadline):
        rounds += 1
        for key, previous in list(suspects.items()):
            result = await _compare_key(redis, spec, key)
            confirmations[key] = confirmations[key] + 1 if result == previous else 1
            suspects[key] = result
            difference, _ = result
            if not difference or confirmations[key] == CONFIRMATIONS:
                problems += _describe(key, difference)
                del suspects[key]
        await asyncio.sleep(RECHECK_INTERVAL if suspects else 0)
    return problems, list(suspects)


def _describe(key: str, difference: Difference) -> list[Problem]:
    return [
        Problem("counters", key, f"{name} is {value}, the views contribute {sum_}")
        for name, (value, sum_) in sorted(difference.items())
    ]


async def _find_suspects(
    redis: RedisReader, spec: ProjectionSpec, sums: Counter[tuple[str, str]], counts: Counter[str]
) -> set[str]:
    """Return the keys whose counters differ from the sums."""
    expected: dict[str, dict[str, int]] = {}
    for (key, name), amount in sums.items():
        if amount and key.startswith(f"counters:{spec.name}:"):
            expected.setdefault(key, {})[name] = amount
    suspects, scanned_keys = set[str](), set[str]()
    async for page in redis.scan_keys("counters", spec.view):
        keys = list(set(page) - scanned_keys)
        scanned_keys.update(keys)
        for key, fields in zip(keys, await redis.read_hashes(keys), strict=True):
            counts["counters"] += len(fields)
            if parse_counters(fields) != expected.get(key, {}):
                suspects.add(key)
    counts["counter keys"] += len(scanned_keys)
    return suspects | (expected.keys() - scanned_keys)


async def _compare_key(redis: RedisReader, spec: ProjectionSpec, key: str) -> tuple[Difference, int]:
    """Compare one key with all of its contributors.

    Returns:
        The difference, and the sum of the contributors' revisions; 0 where one transaction has read them all.
    """
    index = spec.contributors_index(key)
    try:
        members = [member async for page in redis.scan_members(index) for member in page]
    except ResponseError:  # no sorted set, which is a finding of its own: nothing to compare with
        return {}, 0
    ids = list(dict.fromkeys(map(id_of_member, members)))
    sums: Counter[str] = Counter()
    counters: dict[str, int] = {}
    revisions = 0
    for start in range(0, len(ids) or 1, ATOMIC_VIEWS):
        views = [spec.view.key(view_id) for view_id in ids[start : start + ATOMIC_VIEWS]]
        commands = [("HMGET", view, "revision", "counted") for view in views]
        *replies, fields = await redis.execute([*commands, ("HGETALL", key)], atomic=True)
        counters = parse_counters(fields)
        for reply in replies:
            revision, counted = reply if isinstance(reply, list) else (None, None)
            revisions += int(revision) if revision and revision.isdigit() else 0
            for (counters_key, name), amount in (parse_contributions(counted) or {}).items():
                sums[name] += amount if counters_key == key else 0
    difference = {
        name: (counters.get(name, 0), sums[name])
        for name in {*sums, *counters}
        if counters.get(name) != (sums[name] or None)  # Redis holds no counter of 0
    }
    return difference, revisions if len(ids) > ATOMIC_VIEWS else 0
