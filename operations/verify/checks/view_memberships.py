"""Sorted sets in Redis, checked from the views: each view must be in its indexes and change feeds.

`sorted_sets.py` checks the opposite direction: it finds members without a view.
"""

from collections.abc import Iterator, Sequence

from contracts.view_layout import MAX_CHANGE_FEED_SIZE
from operations.verify.checks.views import ViewCheck
from operations.verify.model import Expected, Problem
from operations.verify.sources import RedisReader


async def read(redis: RedisReader, views: Sequence[ViewCheck]) -> None:
    """Read views, then their histories, which then hold an entry for every event that the views include."""
    hashes = await redis.read_hashes([check.spec.view.key(check.id) for check in views])
    for check, view in zip(views, hashes, strict=True):
        check.view = view
    with_history = [check for check in views if check.spec.history]
    histories = await redis.read_large_hashes([check.spec.view.history(check.id) for check in with_history])
    for check, history in zip(with_history, histories, strict=True):
        check.history = history


async def compare(redis: RedisReader, views: Sequence[ViewCheck], expected: Expected) -> None:
    """Check that views are in their indexes and change feeds, and add their contributions to `expected`."""
    memberships = [
        (view, *membership) for view in views if view.version for membership in _list_memberships(view)
    ]
    scores = await redis.read_scores([(key, member) for _, _, key, member in memberships])
    suspects: list[tuple[ViewCheck, Problem]] = []
    for (view, check, key, member), score in zip(memberships, scores, strict=True):
        expected.members[key] += score is not None
        if check == "indexes" and score != 0:
            text = f"{member} is missing" if score is None else f"{member} has score {score}, expected 0"
            suspects.append((view, Problem(check, key, text)))
        if check == "change_feeds" and score is None and await _has_room(redis, key):
            suspects.append((view, Problem(check, key, f"{member} is missing")))
    for view in views:
        for counter, amount in view.contributions.items():
            expected.contributions[counter] += amount
        expected.event_contributions.update(view.event_contributions)
    await _confirm_unchanged(redis, suspects)


def _list_memberships(view: ViewCheck) -> Iterator[tuple[str, str, str]]:
    """Yield (check, key, member) for every sorted set that must contain a view."""
    list_entries = view.spec.list_kept_entries if view.archived else view.spec.indexes
    for key, member in list_entries(view.expected):
        yield "indexes", key, member
    for key in view.spec.change_feeds(view.expected):
        yield "change_feeds", key, view.id


async def _has_room(redis: RedisReader, key: str) -> bool:
    """Return whether a change feed is below its limit; a full one has dropped its earliest changes."""
    (size,) = await redis.execute([("ZCARD", key)])
    return not isinstance(size, int) or size < MAX_CHANGE_FEED_SIZE


async def _confirm_unchanged(redis: RedisReader, suspects: Sequence[tuple[ViewCheck, Problem]]) -> None:
    """Report the problems of views that were not written since they were read; the others are unstable."""
    commands = [("HGET", view.spec.view.key(view.id), "revision") for view, _ in suspects]
    revisions = await redis.execute(commands)
    for (view, problem), revision in zip(suspects, revisions, strict=True):
        if revision == view.revision:
            view.problems.append(problem)
        else:
            text = "its view changed during the check"
            view.problems.append(Problem(problem.check, problem.subject, text, transient=True, unstable=True))
