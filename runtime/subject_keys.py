"""Opens events with the keys of their subjects, which are read in batches and kept for a while.

A process that has a key uses it for KEPT seconds after it was destroyed, a reader of the stream until it
reads the event that says so.
"""

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Generic, TypeVar, cast

import msgspec
from diptych.privacy.v1.privacy_pb2 import SubjectForgotten
from google.protobuf.message import DecodeError

from contracts.envelope import RecordedEvent
from contracts.forgetting import FORGOTTEN
from contracts.personal_data import Keys, SubjectKey, TypedData, list_key_ids, may_be_sealed, open_data
from contracts.subject_keys import WrappedKey, Wrapper

KEPT = 15.0
"""Seconds for which a key is used before it is read again."""
MAX_KEPT = 100_000
"""Keys that are kept, at most: some 30 MB."""
READ_KEYS = "SELECT id, wrapped_by, wrapped FROM subject_keys WHERE id = ANY($1::bytea[])"
"""The statement of readers with PostgreSQL."""

Fetch = Callable[[Collection[bytes]], Awaitable[Sequence[WrappedKey]]]
"""Returns the existing ones among keys with these ids."""
Event = TypeVar("Event", bound=msgspec.Struct)
Name = TypeVar("Name", bound=Hashable)


class KeyCache(Generic[Name]):
    """Keys by their ids or subjects, each for KEPT seconds.

    Args:
        most: keys that are kept, at most; the oldest are dropped.
        clock: returns seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._keys: dict[Name, tuple[SubjectKey, float]] = {}
        """With the time until which each is kept; the oldest first."""

    def find(self, name: Name) -> SubjectKey | None:
        kept = self._keys.get(name)
        return kept[0] if kept is not None and kept[1] > self._clock() else None

    def keep(self, keys: Mapping[Name, SubjectKey]) -> None:
        until = self._clock() + KEPT
        for name, key in keys.items():
            self._keys.pop(name, None)
            self._keys[name] = key, until
        while len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]


class SubjectKeys:
    """The keys that a process has in use.

    Args:
        wrapper: unwraps them.
        clock: returns seconds.
    """

    def __init__(self, wrapper: Wrapper, clock: Callable[[], float] = monotonic) -> None:
        self.wrapper = wrapper
        self._keys = KeyCache[bytes](MAX_KEPT, clock)
        self._destroyed: dict[bytes, SubjectKey] = {}
        """Those that an event says to be destroyed: an answer under way may be older than that event."""

    async def find(self, ids: Collection[bytes], fetch: Fetch) -> Keys:
        """Return the keys with these ids; those that do not exist, or are damaged, are missing.

        Raises:
            MasterKeyMissing: a master key is missing.
            Exception: that `fetch` raises.
        """
        found = {id_: self._destroyed[id_] for id_ in ids if id_ in self._destroyed}
        found |= {id_: kept for id_ in ids if id_ not in found and (kept := self._keys.find(id_)) is not None}
        if missing := [id_ for id_ in ids if id_ not in found]:
            read = await self.wrapper.unwrap(await fetch(missing))
            self.keep(read.values())
            found |= read | {id_: self._destroyed[id_] for id_ in missing if id_ in self._destroyed}
        return found

    def note_destroyed(self, events: Iterable[TypedData]) -> None:
        """Use no more the keys that events say to be destroyed."""
        for event in events:
            if event.type == FORGOTTEN:
                with suppress(DecodeError):
                    id_ = SubjectForgotten.FromString(event.data).key_id
                    self._destroyed[id_] = SubjectKey(id_, None)
        while len(self._destroyed) > MAX_KEPT:
            del self._destroyed[next(iter(self._destroyed))]

    def keep(self, keys: Iterable[SubjectKey]) -> None:
        self._keys.keep({key.id: key for key in keys})

    async def open(self, events: Sequence[RecordedEvent], fetch: Fetch) -> Sequence[RecordedEvent]:
        """Return events in clear, as far as their keys exist.

        Raises:
            As `find` does.
        """
        return await self.open_each(events, [event.stream for event in events], fetch)

    async def open_each(
        self, events: Sequence[Event], streams: Sequence[str], fetch: Fetch
    ) -> Sequence[Event]:
        """Return events in clear, as `open` does, with their streams beside them."""
        ids = list_ids(cast("Sequence[TypedData]", events))
        if not ids:
            return events
        keys = await self.find(ids, fetch)
        return [open_event(event, stream, keys) for event, stream in zip(events, streams, strict=True)]


def list_ids(events: Iterable[TypedData]) -> set[bytes]:
    """Return the ids of the keys that open events."""
    return set().union(*(list_key_ids(event) for event in events if may_be_sealed(event.type)))


def open_event(event: Event, stream: str, keys: Keys) -> Event:
    """Return an event in clear; as it is, if it cannot be opened, so that decoding it says so."""
    if not may_be_sealed(event.type):  # type: ignore[attr-defined]
        return event
    try:
        data = open_data(event, stream, keys)  # type: ignore[arg-type]
    except Exception:  # it does not parse, or was sealed for another event
        return event
    return event if data is event.data else msgspec.structs.replace(event, data=data)  # type: ignore[attr-defined]
