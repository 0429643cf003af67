"""Long sequences of events, and large hashes, in temporary files.

How it works. A stream of a million events takes gigabytes as objects. `SpooledEvents` writes them to a file
in blocks, and reads a block at a time; in memory are 10 bytes for each event. `ParsedEvents` decodes the
messages while it is iterated over. Both are sequences, so a fold need not know whether its events are in
memory. A fold that selects events of some kinds reads all blocks but decodes those events alone.
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any, overload

import msgspec

from contracts.envelope import RecordedEvent
from contracts.event_types import EventTypes
from contracts.personal_data import Keys
from operations.verify.model import Event
from runtime.subject_keys import open_event

SPOOLED_ITEMS = 2_000
"""Events of a stream, or entries of a hash, from which on they are kept in a file."""
MAX_DIGITS = 18
"""Digits of a number that may name a field of a file."""
MIN_NUMBERS = 2_000_000
"""Numbers up to which a hash of any size may name fields: 32 MB."""
BLOCK_BYTES = 64 * 1024
"""Bytes of a block, from which on it is written."""

_encode_block = msgspec.msgpack.Encoder().encode
_decode_block = msgspec.msgpack.Decoder(list[RecordedEvent]).decode


class _EventFile:
    """The file of a stream's events in order of their versions."""

    def __init__(self) -> None:
        self.file = TemporaryFile()  # noqa: SIM115 - closed with this object
        self.versions, self.types = array("Q"), array("H")
        """Of each event; types are indexes of `type_names`."""
        self.type_names: dict[str, int] = {}
        self._firsts, self._offsets = array("Q"), array("Q", [0])
        """Of each block, the index of its first event, and its offset; the last offset is the end."""
        self._block: list[RecordedEvent] = []
        self._block_bytes = 0
        self._cached: tuple[int, list[RecordedEvent]] = -1, []

    def append(self, event: RecordedEvent) -> None:
        self.versions.append(event.version)
        self.types.append(self.type_names.setdefault(event.type, len(self.type_names)))
        self._block.append(event)
        self._block_bytes += len(event.data) + 200
        if self._block_bytes >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._block:
            self._firsts.append(len(self.versions) - len(self._block))
            self._offsets.append(self._offsets[-1] + self.file.write(_encode_block(self._block)))
            self.file.flush()
            self._block, self._block_bytes = [], 0

    def read(self, index: int) -> RecordedEvent:
        block = bisect_right(self._firsts, index) - 1
        if self._cached[0] != block:
            offset, end = self._offsets[block], self._offsets[block + 1]
            self._cached = block, _decode_block(os.pread(self.file.fileno(), end - offset, offset))
        return self._cached[1][index - self._firsts[block]]


class SpooledEvents(Sequence[RecordedEvent]):
    """A stream's recorded events in a file; slices are views.

    Args:
        events: in order of their versions.
    """

    def __init__(self, events: Iterable[RecordedEvent] = ()) -> None:
        self._file = _EventFile()
        self._range = range(0)
        for event in events:
            self.append(event)

    def append(self, event: RecordedEvent) -> None:
        self._file.append(event)
        self._range = range(len(self._file.versions))

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> RecordedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> "SpooledEvents": ...
    def __getitem__(self, index: int | slice) -> "RecordedEvent | SpooledEvents":
        self._file.flush()
        if isinstance(index, int):
            return self._file.read(self._range[index])
        view = SpooledEvents.__new__(SpooledEvents)
        view._file, view._range = self._file, self._range[index]
        return view

    def __iter__(self) -> Iterator[RecordedEvent]:
        self._file.flush()
        return map(self._file.read, self._range)

    def list_versions(self) -> Sequence[int]:
        return self._file.versions[self._range.start : self._range.stop]

    def select(self, types: Collection[str]) -> Iterator[RecordedEvent]:
        """Yield the events of these types, by the full names of their messages."""
        self._file.flush()
        wanted = {number for name, number in self._file.type_names.items() if name in types}
        return (self._file.read(index) for index in self._range if self._file.types[index] in wanted)


class ParsedEvents(Sequence[Event]):
    """Recorded events with their messages, decoded when they are read.

    Args:
        records: the recorded events; all of them can be decoded.
        types: the types of their context.
        keys: open them.
    """

    def __init__(self, records: SpooledEvents, types: EventTypes, keys: Keys) -> None:
        self._records = records
        self._types = types
        self._keys = keys

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> "ParsedEvents": ...
    def __getitem__(self, index: int | slice) -> "Event | ParsedEvents":
        if isinstance(index, int):
            return self._parse(self._records[index])
        return ParsedEvents(self._records[index], self._types, self._keys)

    def __iter__(self) -> Iterator[Event]:
        return map(self._parse, self._records)

    def _parse(self, record: RecordedEvent) -> Event:
        opened = open_event(record, record.stream, self._keys)
        return Event(opened, self._types.decode(opened))

    def list_versions(self) -> Sequence[int]:
        return self._records.list_versions()

    def select(self, kinds: Sequence[Any]) -> Iterator[Any]:
        """Yield the messages of these kinds."""
        names = {name for kind in kinds for name in self._types.list_versions(kind)}
        records = self._records.select(names)
        return (self._types.decode(open_event(each, each.stream, self._keys)) for each in records)


class SpooledHash(Mapping[bytes, bytes]):
    """A hash with many fields, most of which are named 1, 2, 3 and so on, in a file.

    Args:
        size: the number of its fields. A field with a number far above it stays in memory.
    """

    def __init__(self, size: int) -> None:
        self._max_number = max(2 * size, MIN_NUMBERS)
        self._file = TemporaryFile()  # noqa: SIM115 - closed with this object
        self._end = 0
        self._offsets, self._sizes = array("Q"), array("q")
        """Of the fields by number; a size of -1: there is none."""
        self._others: dict[bytes, bytes] = {}

    def add(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Add fields, each of which may be known already."""
        written = []
        for name, value in fields:
            number = self._find_number(name)
            if number is None:
                self._others[name] = value
                continue
            missing = number + 1 - len(self._sizes)
            self._offsets.extend(array("Q", [0]) * missing)
            self._sizes.extend(array("q", [-1]) * missing)
            self._offsets[number], self._sizes[number] = self._end, len(value)
            self._end += len(value)
            written.append(value)
        self._file.write(b"".join(written))
        self._file.flush()

    def _find_number(self, name: bytes) -> int | None:
        """Return the number that a field is named after; None for fields that are kept in memory."""
        if not name.isdigit() or len(name) > MAX_DIGITS or (len(name) > 1 and name[:1] == b"0"):
            return None
        return number if (number := int(name)) <= self._max_number else None

    def __getitem__(self, name: bytes) -> bytes:
        number = self._find_number(name)
        if number is None:
            return self._others[name]
        if number >= len(self._sizes) or self._sizes[number] < 0:
            raise KeyError(name)
        return os.pread(self._file.fileno(), self._sizes[number], self._offsets[number])

    def __iter__(self) -> Iterator[bytes]:
        yield from self._others
        yield from (b"%d" % number for number, size in enumerate(self._sizes) if size >= 0)

    def __len__(self) -> int:
        return len(self._others) + sum(size >= 0 for size in self._sizes)
