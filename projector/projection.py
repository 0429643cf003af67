"""The vocabulary of projections: a view, the handlers of its events, and the data derived from it. Pure.

How it works. A projection folds each source stream into one view message. Handlers are registered by event
type with `on`; events of older versions arrive as their newest. `fold` applies a run of events to a private
copy of the view and renders the result: the serialised message, its index entries, its
contributions to counters, its change feeds, and one history entry for each event. A run is applied as a
whole. Only if that fails is it repeated event by event, to find the last good state and the event that
failed. A failure is returned, not raised: handlers, decoding and rendering depend on the event's content, so
any exception may occur.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from math import inf
from time import perf_counter
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes, Parser
from contracts.forgetting import FORGOTTEN, note_forgotten
from contracts.view_layout import GENERATION, View
from projector.archival import Archival
from projector.columns import create_column_reader

V = TypeVar("V", bound=Message)
E = TypeVar("E", bound=Message)

Entry = tuple[str, str]
"""An index entry: the key of the index (`View.index`) and the member (`index_member`)."""
Contribution = tuple[str, str, int]
"""An amount for a counter: the key of the counters, the counter's name, the amount."""
HistoryEntry = tuple[int, Message]
"""An event's version, and its entry in the view's history."""
MAX_CONTRIBUTION = 10**15
"""The largest amount, positive or negative, so that one absurd event cannot fill a counter of 64 bits."""


class OutOfTime(Exception):
    """The handlers of a batch take too long. No event is to blame: the caller applies fewer at once."""


class RenderedView(msgspec.Struct, Generic[V], frozen=True):
    """A view with everything derived from it, as it is written."""

    message: V
    data: bytes
    """The serialised message."""
    columns: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]
    contributions: tuple[tuple[str, str, str], ...]
    """As `Contribution`, with the amount in decimal digits."""
    change_feeds: tuple[str, ...]
    history_entries: tuple[tuple[int, bytes], ...]
    """The versions and the serialised history entries of the applied events."""
    event_contributions: tuple[tuple[str, str, str], ...]
    """The contributions of these history entries, as `Contribution` with the amount in decimal digits."""
    owner: str | None = None
    """The id of the person whose object it is; None if such views belong to nobody."""


class Projection(Generic[V]):
    """A view and its handlers: one view message per source stream, folded from the stream's events.

    Args:
        view: the view; an option of its message declares the source streams.
        events: the events of those streams. An event of another type cannot be applied.
        columns: fields of the view that are readable in Redis.
        indexes: returns the view's index entries (`View.index`), from the folded view.
        contributions: returns the view's contributions to counters (`View.counters`), from the folded view.
            They replace the view's previous contributions.
        change_feeds: returns the change feeds (`View.change_feed`) that list the view after each change,
            from the folded view.
        history: returns an event's entry in the view's history, from the view after that event.
        event_contributions: returns the contributions of a history entry to counters of events
            (`View.event_counters`). They are added once and never replaced.
        read_entry_time: returns the time of a serialised history entry, in nanoseconds since 1970. Entries
            older than their retention are removed; None: they stay as long as the view.
        archival: which views may be archived; None: the aggregates never end.
    """

    def __init__(
        self,
        view: View,
        *,
        events: EventTypes,
        columns: Sequence[str] = (),
        indexes: Callable[[V], Iterable[Entry]] = lambda _: (),
        contributions: Callable[[V], Iterable[Contribution]] = lambda _: (),
        change_feeds: Callable[[V], Iterable[str]] = lambda _: (),
        history: Callable[[V, RecordedEvent], Message] | None = None,
        event_contributions: Callable[[Any], Iterable[Contribution]] = lambda _: (),
        read_entry_time: Callable[[bytes], int] | None = None,
        archival: Archival[V] | None = None,
    ) -> None:
        self.view = view
        self.read_entry_time = read_entry_time
        self.archival = archival
        self._events = events
        self._event_names = events.names
        self.handlers: dict[type[Message], Callable[[V, Any], None]] = {}
        """The handlers by event type."""
        self._handlers_by_name: dict[str, tuple[Parser, Callable[[V, Any], None]]] = {}
        self._read_columns = create_column_reader(view.message, columns)
        self._indexes = indexes
        self._contributions = contributions
        self._change_feeds = change_feeds
        self._history = history
        self._event_contributions = event_contributions
        self._has_version = "version" in view.message.DESCRIPTOR.fields_by_name

    def at(self, generation: str) -> "Projection[V]":
        """Return the same projection into another generation of its view."""
        other = copy(self)
        other.view = self.view.at(generation)
        if self.archival is not None:
            other.archival = self.archival.at(other.view)
        return other

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All functions that it consists of."""
        own = (
            self._indexes,
            self._contributions,
            self._change_feeds,
            self._history,
            self._event_contributions,
        )
        return [*self.handlers.values(), *(function for function in own if function is not None)]

    def _place(self, keyed: Iterable[Any]) -> tuple[Any, ...]:
        """Return entries or contributions under the keys of the view's generation.

        The functions of a projection make keys of the first one.
        """
        if self.view.generation == GENERATION:
            return tuple(keyed)
        return tuple((self.view.move(key), *rest) for key, *rest in keyed)

    def on(self, event: type[E]) -> Callable[[Callable[[V, E], None]], Callable[[V, E], None]]:
        """Register the handler of an event type. The handler modifies the view, which is a private copy.

        Events without a handler advance the view's version and change nothing else.

        Raises:
            ValueError: the type is not the newest version of an event, or has a handler already.
        """
        self._events.check_newest(event)
        if event in self.handlers:
            raise ValueError(f"{self.view.projection} has a handler of {event.DESCRIPTOR.full_name}")

        def register(handler: Callable[[V, E], None]) -> Callable[[V, E], None]:
            self.handlers[event] = handler
            for name in self._events.list_versions(event):
                self._handlers_by_name[name] = self._events.get_parser(name), handler
            return handler

        return register

    def fold(
        self,
        view: V,
        events: Sequence[RecordedEvent],
        deadline: float = inf,
        skipped: frozenset[int] = frozenset(),
    ) -> tuple[RenderedView[V] | None, int, Exception | None]:
        """Apply events to a copy of a view; their versions follow the view's without a gap.

        Args:
            view: the view before the events.
            events: one at least.
            deadline: of `perf_counter`.
            skipped: versions that advance the view's version and change nothing else.

        Returns:
            The view after the last event that could be applied, None if there is none; the number of events
            applied; and the exception of the next one, from decoding, handling or rendering.

        Raises:
            OutOfTime: the deadline passed before the last event.
        """
        try:
            copy, history_entries = _copy(view), list[HistoryEntry]()
            for event in events:
                _check_time(deadline)
                if event.version not in skipped:
                    history_entries += self._apply(copy, event)
            if skipped and _is_empty(copy):
                return self._render_empty(copy, events[-1].version), len(events), None
            return self._render(copy, events[-1].version, history_entries), len(events), None
        except OutOfTime:
            raise
        except Exception:  # any event may have caused it: fold again, slowly, to find out which
            return self._fold_one_by_one(view, events, deadline, skipped)

    def _fold_one_by_one(
        self, view: V, events: Sequence[RecordedEvent], deadline: float, skipped: frozenset[int]
    ) -> tuple[RenderedView[V] | None, int, Exception | None]:
        rendered, history_entries = None, list[HistoryEntry]()
        for count, event in enumerate(events):
            _check_time(deadline)
            copy = _copy(rendered.message if rendered else view)
            try:
                added = () if event.version in skipped else self._apply(copy, event)
                extended = [*history_entries, *added]
                if skipped and _is_empty(copy):
                    rendered = self._render_empty(copy, event.version)
                    continue
                rendered = self._render(copy, event.version, extended)
            except Exception as error:
                return rendered, count, error
            history_entries = extended
        return rendered, len(events), None

    def _apply(self, view: V, event: RecordedEvent) -> Sequence[HistoryEntry]:
        """Apply an event to a view; return its history entry, if the projection has a history."""
        if event.type == FORGOTTEN:  # the replay has folded the events before it again
            note_forgotten(view, event.data)
            return ()
        if registration := self._handlers_by_name.get(event.type):
            parse, handler = registration
            handler(view, parse(event.data))
        elif event.type not in self._event_names:
            raise self._events.unknown(event.type)
        return ((event.version, self._history(view, event)),) if self._history else ()

    def _render_empty(self, view: V, version: int) -> RenderedView[V]:
        """Return a view whose events are all skipped: nothing is derived from it."""
        if self._has_version:
            view.version = version  # type: ignore[attr-defined]
        data, owner = view.SerializeToString(), self._find_owner(view)
        return RenderedView(view, data, (), (), (), (), (), (), owner)

    def _find_owner(self, view: V) -> str | None:
        return getattr(view, self.view.owner) if self.view.owner else None

    def _render(self, view: V, version: int, history_entries: Sequence[HistoryEntry]) -> RenderedView[V]:
        if self._has_version:
            view.version = version  # type: ignore[attr-defined]
        return RenderedView(
            message=view,
            data=view.SerializeToString(),
            columns=self._read_columns(view),
            entries=self._place(self._indexes(view)),
            contributions=self._place(_to_digits(self._contributions(view))),
            change_feeds=tuple(map(self.view.move, self._change_feeds(view))),
            history_entries=tuple((at, entry.SerializeToString()) for at, entry in history_entries),
            event_contributions=self._place(
                _to_digits(
                    contribution
                    for _, entry in history_entries
                    for contribution in self._event_contributions(entry)
                )
            ),
            owner=self._find_owner(view),
        )


def _check_time(deadline: float) -> None:
    if perf_counter() > deadline:
        raise OutOfTime


def _is_empty(view: Message) -> bool:
    """Return whether no event was applied to a view."""
    return all(field.name == "version" for field, _ in view.ListFields())


def _to_digits(contributions: Iterable[Contribution]) -> tuple[tuple[str, str, str], ...]:
    """Return contributions with their amounts in decimal digits; without those of zero."""
    contributions = tuple(contributions)
    for key, counter, amount in contributions:
        if abs(amount) > MAX_CONTRIBUTION:
            raise ValueError(f"{amount} for {counter} of {key} is beyond {MAX_CONTRIBUTION}")
    return tuple((key, counter, str(amount)) for key, counter, amount in contributions if amount)


def _copy(view: V) -> V:
    copy = type(view)()
    copy.CopyFrom(view)
    return copy
