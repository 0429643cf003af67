"""The vocabulary of projections: which view, which events change it and how, where it can be found.

Pure: a projection knows neither the feed that events come from nor the store that views go to.
"""

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.message import Message

from projector import columns as columns_of
from runtime.envelope import RecordedEvent
from runtime.views import View

V = TypeVar("V", bound=Message)
E = TypeVar("E", bound=Message)

Entry = tuple[str, str]
"""An index entry: the key of the index (`View.index`) and the member (`index_member`)."""


class UnknownEvent(Exception):
    """The event's type is none of those that this code was built with: it may be newer than the code."""


class Rendered(msgspec.Struct, Generic[V], frozen=True):
    """A view as it is written: the message, its bytes, its readable columns and its index entries."""

    message: V
    data: bytes
    columns: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]


class Projection(Generic[V]):
    """One view message per source stream, folded from the stream's events by the registered handlers.

    Args:
        view: the view; its option in the proto says which stream types it hears.
        events: the module of the events of those streams. An event of another type cannot be applied.
        columns: fields of the view that people see in Redis.
        indexes: the view's entries in indexes; called with the folded view.
    """

    def __init__(
        self,
        view: View,
        *,
        events: ModuleType,
        columns: Sequence[str] = (),
        indexes: Callable[[V], Iterable[Entry]] = lambda _: (),
    ) -> None:
        self.view = view
        self._package: str = events.DESCRIPTOR.package
        self._known = frozenset(
            message.full_name for message in events.DESCRIPTOR.message_types_by_name.values()
        )
        self._handlers: dict[str, tuple[type[Message], Callable[[V, Any], None]]] = {}
        self._columns = columns_of.reader(view.message, columns)
        self._indexes = indexes
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
            self._handlers[name] = (event, handler)
            return handler

        return register

    def fold(
        self, view: V, events: Sequence[RecordedEvent]
    ) -> tuple[Rendered[V] | None, int, Exception | None]:
        """Apply events, which follow the view without a gap, to a copy of it.

        Returns:
            The view after as many of the events as could be applied, None where none could; their number;
            and what the next one failed with: whatever its decoding, its handler or the rendering raised.
        """
        try:
            copy = _copy(view)
            for event in events:
                self._apply(copy, event)
            return self._render(copy, events[-1].version), len(events), None
        except Exception:  # an event may hold anything; which one it was, the slow way finds out
            return self._fold_one_by_one(view, events)

    def _fold_one_by_one(
        self, view: V, events: Sequence[RecordedEvent]
    ) -> tuple[Rendered[V] | None, int, Exception | None]:
        rendered = None
        for done, event in enumerate(events):
            copy = _copy(rendered.message if rendered else view)
            try:
                self._apply(copy, event)
                rendered = self._render(copy, event.version)
            except Exception as error:
                return rendered, done, error
        return rendered, len(events), None

    def _apply(self, view: V, event: RecordedEvent) -> None:
        if event.type not in self._known:
            raise UnknownEvent(f"{event.type} is not an event of {self._package}")
        if found := self._handlers.get(event.type):
            message, handler = found
            handler(view, message.FromString(event.data))

    def _render(self, view: V, version: int) -> Rendered[V]:
        if self._has_version:
            view.version = version  # type: ignore[attr-defined]
        columns, entries = self._columns(view), self._indexes(view)
        return Rendered(view, view.SerializeToString(), tuple(columns.items()), tuple(entries))


def _copy(view: V) -> V:
    copy = type(view)()
    copy.CopyFrom(view)
    return copy
