"""What a context says of itself to be verified: how its events fold, into which snapshot and which views."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.view_layout import View


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event with its message parsed."""

    recorded: RecordedEvent
    message: Any


Fold = Callable[[Sequence[Event]], Any]
"""What comes of an aggregate's events, one at least, from the first on; ValueError where nothing can."""


@dataclass(frozen=True)
class Reading:
    """One projection: what must lie in Redis for every aggregate.

    Args:
        view: the view message and its keys.
        fold: returns the view message.
        columns: returns the readable fields of a view's hash.
        indexes: returns the (index key, member) that a view must have.
        totals: returns the (total key, counter, amount) that a view adds; no amount is 0.
        siblings: returns the index whose members are the views that add to a total.
        changes: returns the sets of changes that a view belongs to.
        log: returns what the view's log holds, an entry for each event; None where there is no log.
        tallies: returns the (tally key, counter, amount) that such an entry adds, no amount being 0; None
            where there are no tallies.
    """

    view: View
    fold: Fold
    columns: Callable[[Any], Mapping[str, str]] = lambda _: {}
    indexes: Callable[[Any], Iterable[tuple[str, str]]] = lambda _: ()
    totals: Callable[[Any], Iterable[tuple[str, str, int]]] = lambda _: ()
    siblings: Callable[[str], str] = lambda key: key
    changes: Callable[[Any], Iterable[str]] = lambda _: ()
    log: Callable[[Sequence[Event]], Sequence[Message]] | None = None
    tallies: Callable[[Any], Iterable[tuple[str, str, int]]] | None = None

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.view.projection


@dataclass(frozen=True)
class Aggregate:
    """One type of stream.

    Args:
        stream_type: `<context>.<aggregate>`.
        events: the modules of its events' messages.
        snapshot: folds the events into what `streams.state` must hold, as parsed JSON.
        readings: the projections that hear it.
    """

    stream_type: str
    events: Sequence[ModuleType]
    snapshot: Fold
    readings: Sequence[Reading]

    def messages(self) -> dict[str, type[Message]]:
        """Return the messages of its events by their full names."""
        return {
            message.full_name: getattr(module, message.name)
            for module in self.events
            for message in module.DESCRIPTOR.message_types_by_name.values()
        }
