"""One view in Redis, compared with the fold of its events at the view's own version. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from operations.verify.findings import Problem
from operations.verify.model import Event, Reading

Hash = Mapping[bytes, bytes]
"""All fields of a view's hash; empty where there is none."""


@dataclass
class Seen:
    """What came of comparing a view."""

    problems: list[Problem] = field(default_factory=list)
    expected: Any = None
    """The message that the events demand at the view's version; None where there is nothing to compare."""
    settled: bool = False
    """Whether all that is derived from the view must have followed it."""
    version: int = 0
    """The view's version, as far as it could be compared."""
    revision: bytes = b""
    added: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What the view says that counters hold of it, by (total key, counter)."""


def compare(
    reading: Reading,
    name: str,
    found: Hash,
    events: Sequence[Event],
    target: int,
    reached: bool,
    standby: bool,
) -> Seen:
    """Compare a view.

    Args:
        reading: the projection.
        name: the aggregate's id.
        found: the view's hash.
        events: all events of the aggregate, read after the hash.
        target: the version that the aggregate had before the hash was read.
        reached: whether the projection's progress says that this version is in the view.
        standby: whether the events may be behind the view.
    """
    seen, subject = Seen(), f"view {reading.name} {name}"

    def problem(text: str, *, check: str = "views", waits: bool = False) -> None:
        seen.problems.append(Problem(check, subject, text, waits))

    if not found:
        problem(f"it is missing, the aggregate is at version {target}", waits=not reached)
        return seen
    seen.revision = found.get(b"revision", b"")
    version, settled = _number(found, b"version"), _number(found, b"settled")
    if version is None or settled is None:
        problem("version and settled are no numbers")
        return seen
    parked = found.get(b"parked")
    if parked:
        text, retrying = _parked(parked)
        problem(text, waits=retrying)
    if version > len(events):
        problem(f"it is at version {version}, the aggregate at {len(events)}", waits=standby)
        return seen
    if version < target and not parked:
        problem(f"it is at version {version}, the aggregate at {target}", waits=not reached)
    if version == 0:
        return seen
    seen.version, seen.settled = version, settled == version
    if not seen.settled and not parked:
        problem(
            f"it is settled at version {settled}, and at {version}", waits=settled < version and not reached
        )
    seen.expected = reading.fold(events[:version])
    for text in (*_content(reading, seen.expected, found, version), *_derived(reading, seen, found)):
        problem(text)
    return seen


def _parked(record: bytes) -> tuple[str, bool]:
    """Return why a view is parked, and whether it is tried again."""
    try:
        told = msgspec.json.decode(record)
        retrying = told["state"] == "retrying"
        return f"it is parked at version {told['version']}: {told['error']}", retrying
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"it is parked: {record!r}", False


def _content(reading: Reading, expected: Message, found: Hash, version: int) -> Iterator[str]:
    try:
        actual = type(expected).FromString(found.get(b"data", b""))
    except DecodeError:
        yield f"its data is no {expected.DESCRIPTOR.full_name}"
        return
    if actual != expected:
        for text in differences(actual, expected):
            yield f"{text} at version {version}"
    for column, value in reading.columns(expected).items():
        shown = found.get(column.encode(), b"").decode("utf-8", "replace")
        if shown != value:
            yield f"column {column} shows {shown!r}, the fold says {value!r} at version {version}"


def _derived(reading: Reading, seen: Seen, found: Hash) -> Iterator[str]:
    """Yield what is wrong with what the hash remembers of indexes and totals."""
    entries = Counter(reading.indexes(seen.expected))
    amounts = Counter({(key, name): amount for key, name, amount in reading.totals(seen.expected)})
    wanted: dict[bytes, Any] = {b"entries": entries, b"amounts": amounts}
    if seen.settled:
        wanted |= {b"stale": Counter(), b"added": amounts}
    for name, value in wanted.items():
        if remembered(found.get(name)) != value:
            yield f"{name.decode()} is {found.get(name, b'').decode()}, which the fold does not say"
    seen.added = remembered(found.get(b"added")) or Counter()


def remembered(value: bytes | None) -> Counter[Any] | None:
    """Return [[key, member], ...] as how often each is there, [[key, counter, digits], ...] as amounts."""
    counted: Counter[Any] = Counter()
    try:
        for key, name, *amount in msgspec.json.decode(value or b"[]"):
            counted[key, name] += int(*amount) if amount else 1
    except (msgspec.DecodeError, TypeError, ValueError):
        return None
    return counted


def differences(actual: Message, expected: Message) -> Iterator[str]:
    """Yield in which fields two messages differ."""
    shown, wanted = _readable(actual), _readable(expected)
    names = [name for name in {**wanted, **shown} if shown.get(name) != wanted.get(name)]
    for name in names:
        yield f"{name} is {_short(shown.get(name))}, the fold says {_short(wanted.get(name))}"
    if not names:
        yield "it has fields that its message does not know"


def _readable(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _number(found: Hash, name: bytes) -> int | None:
    value = found.get(name, b"0")
    return int(value) if value.isdigit() else None


def compare_log(
    reading: Reading, name: str, log: Hash, seen: Seen, events: Sequence[Event]
) -> Iterator[Problem]:
    """Yield what is wrong with a view's log; it was read after the view and before the events."""
    if reading.entry is None:
        return
    subject = f"log {reading.name} {name}"
    for event in events:
        version = event.recorded.version
        data, expected = log.get(str(version).encode()), reading.entry(event)
        if data is None:
            if version <= seen.version:
                yield Problem("history", subject, f"it has no entry of version {version}")
            continue
        try:
            actual = type(expected).FromString(data)
        except DecodeError:
            yield Problem("history", subject, f"entry {version} is no {expected.DESCRIPTOR.full_name}")
            continue
        if actual != expected:
            for text in differences(actual, expected):
                yield Problem("history", subject, f"in entry {version}, {text}")
    for field_name in log.keys() - {str(event.recorded.version).encode() for event in events}:
        yield Problem("history", subject, f"it has an entry {field_name.decode()}, which no event is behind")
