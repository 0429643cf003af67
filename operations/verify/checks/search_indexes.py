"""Search indexes: the documents that each query server publishes a digest of, against the views.

The expected digest is computed from the views, by the verification's own code. Query servers follow the
views, so a difference counts only once views and digest have both stayed the same for some seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import msgspec

from contracts.search_digests import LIFETIME, SearchDigest, decode, hash_check, make_key
from contracts.view_layout import View
from operations.verify.model import Problem, ProjectionSpec
from operations.verify.report import Report
from operations.verify.sources import RedisReader

INTERVAL = 1.5
"""Seconds between two looks; query servers publish a changed digest every second."""
STABLE_FOR = LIFETIME + 1.0
"""Seconds for which a difference stays the same before it is a finding. By then the digests of servers that
have ended are gone."""

Digests = Mapping[str, SearchDigest | None]
"""By key; None for a value that cannot be read."""


async def check(redis: RedisReader, spec: ProjectionSpec, report: Report, deadline: float) -> None:
    """Compare the indexes of a projection; nothing to do if no query server has one."""
    previous, since = None, monotonic()
    while digests := await _read_digests(redis, spec.name):
        expected = await _compute_expected(redis, spec)
        wrong = {key: digest for key, digest in digests.items() if digest != expected}
        if (wrong, expected) != previous:
            previous, since = (wrong, expected), monotonic()
        if not wrong or monotonic() - since >= STABLE_FOR:
            report.counts["search indexes"] += len(digests)
            report.counts["search documents"] += expected.documents * len(digests)
            report.add_all(_describe(key, digest, expected) for key, digest in wrong.items())
            return
        if monotonic() > deadline:
            report.notes.append(f"search index {spec.name} changed during every check: not compared")
            return
        await asyncio.sleep(INTERVAL)


def _describe(key: str, digest: SearchDigest | None, expected: SearchDigest) -> Problem:
    if digest is None:
        text = "its digest cannot be read"
    elif digest.documents != expected.documents:
        text = f"has {digest.documents:,} documents, the views make {expected.documents:,}"
    else:
        text = f"has other documents than the {expected.documents:,} of the views"
    return Problem("search", f"search index {key.partition(':')[2]}", text)


async def _read_digests(redis: RedisReader, projection: str) -> Digests:
    keys = await redis.scan_all(make_key(projection, "*"))
    values = await redis.execute([("GET", key) for key in keys])
    return {key: _parse(value) for key, value in zip(keys, values, strict=True) if value is not None}


def _parse(value: Any) -> SearchDigest | None:
    try:
        return decode(value)
    except (TypeError, msgspec.MsgspecError):
        return None


async def _compute_expected(redis: RedisReader, spec: ProjectionSpec) -> SearchDigest:
    search = spec.search
    assert search is not None  # noqa: S101 - only projections with an index are checked
    (generation,) = await redis.read_serving([search.flag_view])
    flagged = set[str]()
    async for views in _read_views(redis, search.flag_view.at(generation)):
        flagged.update(document_id for document_id, is_on in map(search.read_flag, views) if is_on)
    documents = checks = 0
    now = datetime.now(UTC)
    async for views in _read_views(redis, spec.view):
        for view in views:
            text = search.describe(view, flagged, now)
            documents += text is not None
            checks += hash_check(text) if text is not None else 0
    return SearchDigest(documents, checks)


async def _read_views(redis: RedisReader, view: View) -> AsyncIterator[Sequence[Any]]:
    seen = set[int]()
    async for page in redis.scan_keys("view", view):
        keys = [key for key in dict.fromkeys(page) if hash(key) not in seen]  # a scan may repeat keys
        seen.update(map(hash, keys))
        replies = await redis.execute([("HGET", key, "data") for key in keys])
        yield [view.message.FromString(data) for data in replies if isinstance(data, bytes)]
