"""The vocabulary of `diptych verify`: the declarations of contexts, and the results of checks."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes
from contracts.view_layout import View

MAX_PROBLEMS = 1_000
"""Problems of one aggregate, of each sort, that are kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event with its message in the newest version."""

    recorded: RecordedEvent
    message: Any


Fold = Callable[[Sequence[Event]], Any]
"""Folds an aggregate's events from version 1; at least one. ValueError: the events contradict each other.

The events of a long aggregate are read from a file each time: iterate over them, and make no lists of them.
"""


@dataclass(frozen=True)
class SearchSpec:
    """The expected documents of the search indexes of a projection's views.

    Args:
        flag_view: the views of another projection that turn flags of documents on.
        read_flag: returns the id of the document of such a view, and whether it turns the flag on.
        describe: returns what a view's document has, with the ids of those with the flag and the time; None
            if the view has no document.
    """

    flag_view: View
    read_flag: Callable[[Any], tuple[str, bool]]
    describe: Callable[[Any, Set[str], datetime], str | None]


@dataclass(frozen=True)
class ProjectionSpec:
    """The expected content of one projection in Redis, derived from an aggregate's events.

    Args:
        view: the view message and its keys.
        fold: returns the view message.
        columns: returns the readable fields of a view's hash.
        indexes: returns the (index key, member) pairs of a view.
        contributions: returns a view's (counters key, counter, amount); amounts are never 0.
        contributors_index: returns, for a counters key, the index whose members contribute to these counters.
        change_feeds: returns the keys of the change feeds that name a view.
        has_ended: whether a view may be archived.
        kept_indexes: the names of the indexes that keep an archived view.
        history: returns the view's history entries, one for each event; None: the projection has no history.
        event_contributions: returns a history entry's (event counters key, counter, amount); amounts are
            never 0. None: the projection has no event counters.
        search: the documents of its search indexes. None: it has no index.
    """

    view: View
    fold: Fold
    columns: Callable[[Any], Mapping[str, str]] = lambda _: {}
    indexes: Callable[[Any], Iterable[tuple[str, str]]] = lambda _: ()
    contributions: Callable[[Any], Iterable[tuple[str, str, int]]] = lambda _: ()
    contributors_index: Callable[[str], str] = lambda key: key
    change_feeds: Callable[[Any], Iterable[str]] = lambda _: ()
    has_ended: Callable[[Any], bool] = lambda _: False
    kept_indexes: Sequence[str] = ()
    history: Callable[[Sequence[Event]], Iterable[Message]] | None = None
    event_contributions: Callable[[Any], Iterable[tuple[str, str, int]]] | None = None
    search: SearchSpec | None = None

    @property
    def name(self) -> str:
        return self.view.projection

    def at(self, generation: str) -> "ProjectionSpec":
        """Return the expected content of another generation of the projection."""
        view = self.view.at(generation)

        def place(make: Callable[[Any], Iterable[Any]]) -> Callable[[Any], Iterable[Any]]:
            return lambda source: [(view.move(key), *rest) for key, *rest in make(source)]

        return replace(
            self,
            view=view,
            indexes=place(self.indexes),
            contributions=place(self.contributions),
            contributors_index=lambda key: view.move(self.contributors_index(key)),
            change_feeds=lambda source: map(view.move, self.change_feeds(source)),
            event_contributions=self.event_contributions and place(self.event_contributions),
        )

    def list_kept_entries(self, view: Any) -> Sequence[tuple[str, str]]:
        """Return the index entries that an archived view keeps."""
        return [entry for entry in self.indexes(view) if _get_index_name(entry[0]) in self.kept_indexes]


def _get_index_name(key: str) -> str:
    """Return the name in an index's key, `index:<projection>:<generation>:{<name>/<values>}`."""
    return key.partition("{")[2].removesuffix("}").partition("/")[0]


@dataclass(frozen=True)
class Aggregate:
    """One type of stream.

    Args:
        stream_type: `<context>.<aggregate>`.
        events: the events of its context.
        snapshot: folds the events into the expected `streams.state`, as parsed JSON.
        projections: the projections of its events.
        list_counterparts: returns the names of the streams that must have this one among their counterparts.
    """

    stream_type: str
    events: EventTypes
    snapshot: Fold
    projections: Sequence[ProjectionSpec]
    list_counterparts: Callable[[Sequence[Event]], Iterable[str]] = lambda _: ()


@dataclass(frozen=True)
class SagaSpec:
    """One saga.

    Args:
        name: `<context>.<saga>`.
        subscribes_to: the type of the streams whose ids are the ids of its instances; empty if there is none.
        check: checks the effects of its instances. Its arguments are the `PostgresReader`, the aggregates by
            stream type, the `Report`, and the deadline (`time.monotonic`) for effects that change meanwhile.
        keys: the types of the other streams that its instances follow, each with a function from a message
            to the id of the instance to which the event belongs; empty if it belongs to none.
        deadline: returns the deadline that a first event sets; until then a row stands for the instance.
            None: an instance begins with the first event.
    """

    name: str
    subscribes_to: str
    check: Callable[..., Awaitable[None]] | None = None
    keys: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)
    deadline: Callable[[Any], datetime | None] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference between derived data and the events."""

    check: str
    """A key of report.CHECKS."""
    subject: str
    """For instance `view ordering.order o-17`."""
    text: str
    transient: bool = False
    """Something is behind: the problem may disappear without a repair."""
    unstable: bool = False
    """The subject changed during the check, so the comparison proves nothing."""


def limit_problems(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the first MAX_PROBLEMS, and one more for each check that counts the others."""
    others: dict[str, tuple[int, Problem]] = {}
    for number, problem in enumerate(problems):
        if number < MAX_PROBLEMS:
            yield problem
        else:
            count, first = others.get(problem.check, (0, problem))
            lasting = problem if first.transient and not problem.transient else first
            others[problem.check] = count + 1, lasting
    for count, problem in others.values():
        yield replace(problem, text=f"{problem.text}; and {count - 1:,} more problems like this")


@dataclass
class Expected:
    """Sums over all views, for the Redis keys that many views share."""

    members: Counter[str] = field(default_factory=Counter)
    """Correct members of a sorted set, by key."""
    contributions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Sums of the views' contributions, by (counters key, counter)."""
    event_contributions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Sums of the contributions of all events that the views include, by (event counters key, counter)."""
