"""What lies beside the views in Redis, looked at from the views: their logs and their places in sorted sets.

Whether more is there than views demand is seen from the other side, in `sets.py` and `totals.py`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.view_layout import CHANGES_KEPT
from operations.verify.checks.views import Case
from operations.verify.report import Problem
from operations.verify.sources.read_model import ReadModel


@dataclass
class Tally:
    """What has to lie in the keys that many views share: a number for each sorted set and each counter."""

    members: Counter[str] = field(default_factory=Counter)
    """How many views are in a sorted set and have to be, by key."""
    sums: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What views have added, by (total key, counter)."""
    tallied: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What the events that views have heard add for ever, by (tally key, counter)."""


async def read(redis: ReadModel, views: Sequence[Case]) -> None:
    """Read views, and then their logs, which by then hold all that the views tell of."""
    hashes = await redis.hashes([view.reading.view.key(view.id) for view in views])
    for view, found in zip(views, hashes, strict=True):
        view.found = found
    logged = [view for view in views if view.reading.log]
    logs = await redis.hashes([view.reading.view.history(view.id) for view in logged])
    for view, found in zip(logged, logs, strict=True):
        view.log = found


async def compare(redis: ReadModel, views: Sequence[Case], tally: Tally) -> None:
    """Look whether views are where they have to be, and add them up."""
    places = [(view, *place) for view in views if view.version for place in _places(view)]
    scores = await redis.scores([(key, member) for _, _, key, member in places])
    absent: list[tuple[Case, Problem]] = []
    for (view, check, key, member), score in zip(places, scores, strict=True):
        tally.members[key] += score is not None
        if check == "indexes" and score != 0:
            said = "is not in it" if score is None else f"has the score {score}"
            absent.append((view, Problem(check, key, f"{member} {said}")))
        if check == "change_feeds" and score is None and await _has_room(redis, key):
            absent.append((view, Problem(check, f"change feed {key}", f"{member} is not in it")))
    for view in views:
        for counter, amount in view.added.items():
            tally.sums[counter] += amount
        tally.tallied.update(view.tallied)
    await _unless_moved(redis, absent)


def _places(view: Case) -> Sequence[tuple[str, str, str]]:
    """Return check, key and member of all sorted sets that a view has to be in."""
    reading, expected = view.reading, view.expected
    indexes = [("indexes", key, member) for key, member in reading.indexes(expected)]
    return [*indexes, *(("change_feeds", key, view.id) for key in reading.changes(expected))]


async def _has_room(redis: ReadModel, key: str) -> bool:
    """Return whether a set of changes is not so full that it has forgotten the earlier ones."""
    (count,) = await redis.ask([("ZCARD", key)])
    return not isinstance(count, int) or count < CHANGES_KEPT


async def _unless_moved(redis: ReadModel, absent: Sequence[tuple[Case, Problem]]) -> None:
    """Report what was absent of views that were not written meanwhile; the others have to be seen again."""
    revisions = await redis.ask([("HGET", view.reading.view.key(view.id), "revision") for view, _ in absent])
    for (view, problem), revision in zip(absent, revisions, strict=True):
        if revision == view.revision:
            view.problems.append(problem)
        else:
            text = "it was written while it was looked at"
            view.problems.append(Problem(problem.check, problem.subject, text, waits=True, changes=True))
