"""The vocabulary of housekeeping: a kind of data, and the result of one round on it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

NOTHING_REMOVED = "everything is kept"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one round on one kind."""

    removed: int = 0
    kept_since: datetime | None = None
    """Everything from this time on is kept; None if everything is."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data with a retention.

    Args:
        name: for instance `requests`.
        unit: the items that are counted.
        retention: how long they are kept; None for no limit.
        remove: removes what is older, or only counts it if its second argument is True.
        verb: of the line, for instance `archive`.
    """

    name: str
    unit: str
    retention: timedelta | None
    remove: Callable[[timedelta | None, bool], Awaitable[Result]]
    verb: str = "remove"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a round's report: a line for people, and the same for programs."""

    text: str
    facts: Mapping[str, object]


def describe(kind: Kind, result: Result, dry_run: bool) -> Entry:
    """Return the entry for one kind."""
    done = f"{result.removed:,} {kind.unit} {f'to {kind.verb}' if dry_run else f'{kind.verb}d'}"
    kept = f"kept since {result.kept_since:%Y-%m-%d %H:%M}Z" if result.kept_since else NOTHING_REMOVED
    text = f"{kind.name:14}  {', '.join(filter(None, (done, kept, result.note)))}"
    since = result.kept_since.isoformat() if result.kept_since else None
    facts = {"kind": kind.name, "dry_run": dry_run, "removed": result.removed, "kept_since": since}
    return Entry(text, {**facts, "note": result.note})
