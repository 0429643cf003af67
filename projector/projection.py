"""The vocabulary of projections: which view, which events change it and how, and what is derived from it.

Pure: a projection knows neither the feed that events come from nor the store that views go to.
"""

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.upcasters import Upcaster
from contracts.view_layout import View
from projector import columns as columns_of

V = TypeVar("V", bound=Message)
E = TypeVar("E", bound=Message)

Entry = tuple[str, str]
"""An index entry: the key of the index (`View.index`) and the member (`index_member`)."""
Contribution = tuple[str, str, int]
"""What a view adds to a counter: the key of the counters (`View.total`), the counter's name, how much."""
LARGEST_CONTRIBUTION = 10**15
"""What a view or an event may add or take at the most, so that one absurd event cannot fill 64 bits."""


HistoryEntry = tuple[int, Message]
"""What an event tells: its version, and its entry in the view's log."""


class UnknownEvent(Exception):
    """The event's type is none of those that this code was built with: it may be newer than the code."""


class Rendered(msgspec.Struct, Generic[V], frozen=True):
    """A view as it is written, with all that is derived from it."""

    message: V
    data: bytes
    """The message, serialised."""
    columns: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]
    contributions: tuple[tuple[str, str, str], ...]
    """As `Contribution`, in decimal digits."""
    change_feeds: tuple[str, ...]
    history_entries: tuple[tuple[int, bytes], ...]
    """What the events that were applied told: their versions and serialised log entries."""
    event_contributions: tuple[tuple[str, str, str], ...]
    """What these entries add for ever, as `Contribution`, in decimal digits."""


class Projection(Generic[V]):
    """One view message per source stream, folded from the stream's events by the registered handlers.

    Args:
        view: the view; its option in the proto says which stream types it hears.
        events: the modules of the events of those streams. An event of another type cannot be applied.
        columns: fields of the view that people see in Redis.
        indexes: the view's entries in indexes; called with the folded view, as the next two are.
        amounts: what the view adds to counters.
        announces: the sets of changes (`View.changes`) that name the view whenever it has changed.
        log: what an event tells in the view's log, from the view that it has been applied to.
        upcasters: bring events of older versions to those that have handlers.
        tallies: what such an entry adds to counters for ever (`View.tally`), whatever the view becomes.
    """

    def __init__(
        self,
        view: View,
        *,
        events: Sequence[ModuleType],
        columns: Sequence[str] = (),
        indexes: Callable[[V], Iterable[Entry]] = lambda _: (),
        contributions: Callable[[V], Iterable[Contribution]] = lambda _: (),
        change_feeds: Callable[[V], Iterable[str]] = lambda _: (),
        history: Callable[[V, RecordedEvent], Message] | None = None,
        event_contributions: Callable[[Any], Iterable[Contribution]] = lambda _: (),
        upcasters: Sequence[Upcaster] = (),
    ) -> None:
        self.view = view
        self._packages = " or ".join(module.DESCRIPTOR.package for module in events)
        self._known = frozenset(
            message.full_name
            for module in events
            for message in module.DESCRIPTOR.message_types_by_name.values()
        )
        self._handlers: dict[str, tuple[type[Message], Callable[[V, Any], None]]] = {}
        self._columns = columns_of.reader(view.message, columns)
        self._indexes = indexes
        self._amounts = contributions
        self._announces = change_feeds
        self._history = history
        self._tallies = event_contributions
        self._upcasters = upcasters
        self._has_version = "version" in view.message.DESCRIPTOR.fields_by_name

    def on(self, event: type[E]) -> Callable[[Callable[[V, E], None]], Callable[[V, E], None]]:
        """Register the handler of a type of event; it changes the private copy of the view that it gets.

        Events without a handler advance the view's version and change nothing else.

        Raises:
            ValueError: the type is none of the projection's events, or has a handler already.
        """
        name = event.DESCRIPTOR.full_name
        if name not in self._known or name in self._handlers:
            raise ValueError(f"{self.view.projection} cannot register a handler of {name}")

        def register(handler: Callable[[V, E], None]) -> Callable[[V, E], None]:
            self._register(event, handler)
            return handler

        return register

    def _register(self, event: type[Message], handler: Callable[[V, Any], None]) -> None:
        """Register a handler for a type of event and all its older versions."""
        self._handlers[event.DESCRIPTOR.full_name] = (event, handler)
        for upcaster in self._upcasters:
            if upcaster.target is event:
                self._register(upcaster.source, _upcasting(upcaster, handler))

    def fold(
        self, view: V, events: Sequence[RecordedEvent]
    ) -> tuple[Rendered[V] | None, int, Exception | None]:
        """Apply events, which follow the view without a gap, to a copy of it.

        Returns:
            The view after as many of the events as could be applied, None where none could; their number;
            and what the next one failed with: whatever its decoding, its handler or the rendering raised.
        """
        try:
            copy, history_entries = _copy(view), list[HistoryEntry]()
            for event in events:
                history_entries += self._apply(copy, event)
            return self._render(copy, events[-1].version, history_entries), len(events), None
        except Exception:  # an event may hold anything; which one it was, the slow way finds out
            return self._fold_one_by_one(view, events)

    def _fold_one_by_one(
        self, view: V, events: Sequence[RecordedEvent]
    ) -> tuple[Rendered[V] | None, int, Exception | None]:
        rendered, history_entries = None, list[HistoryEntry]()
        for done, event in enumerate(events):
            copy = _copy(rendered.message if rendered else view)
            try:
                now = [*history_entries, *self._apply(copy, event)]
                rendered = self._render(copy, event.version, now)
            except Exception as error:
                return rendered, done, error
            history_entries = now
        return rendered, len(events), None

    def _apply(self, view: V, event: RecordedEvent) -> Sequence[HistoryEntry]:
        """Apply an event to a view; return what it tells."""
        if event.type not in self._known:
            raise UnknownEvent(f"{event.type} is not an event of {self._packages}")
        if found := self._handlers.get(event.type):
            message, handler = found
            handler(view, message.FromString(event.data))
        return ((event.version, self._history(view, event)),) if self._history else ()

    def _render(self, view: V, version: int, history_entries: Sequence[HistoryEntry]) -> Rendered[V]:
        if self._has_version:
            view.version = version  # type: ignore[attr-defined]
        return Rendered(
            message=view,
            data=view.SerializeToString(),
            columns=tuple(self._columns(view).items()),
            entries=tuple(self._indexes(view)),
            contributions=_digits(self._amounts(view)),
            change_feeds=tuple(self._announces(view)),
            history_entries=tuple((of, entry.SerializeToString()) for of, entry in history_entries),
            event_contributions=_digits(
                amount for _, entry in history_entries for amount in self._tallies(entry)
            ),
        )


def _upcasting(upcaster: Upcaster, handler: Callable[[V, Any], None]) -> Callable[[V, Any], None]:
    return lambda view, event: handler(view, upcaster.convert(event))


def _digits(contributions: Iterable[Contribution]) -> tuple[tuple[str, str, str], ...]:
    contributions = tuple(contributions)
    for total, counter, amount in contributions:
        if abs(amount) > LARGEST_CONTRIBUTION:
            raise ValueError(f"{amount} is too much for {counter} of {total}")
    return tuple((total, counter, str(amount)) for total, counter, amount in contributions if amount)


def _copy(view: V) -> V:
    copy = type(view)()
    copy.CopyFrom(view)
    return copy
