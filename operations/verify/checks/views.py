"""One view in Redis, compared with the fold of its events at the view's own version. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from contracts import streams
from operations.verify.checks.stored_streams import Story
from operations.verify.model import Reading
from operations.verify.report import Problem

_decode = msgspec.json.Decoder(list[list[str]]).decode

Hash = Mapping[bytes, bytes]
"""All fields of a view's hash; empty where there is none."""


@dataclass
class Case:
    """One view: what was read of it, and what comes of comparing it."""

    stream: str
    reading: Reading
    target: int
    """The version that the aggregate had before the view was read."""
    found: Hash = field(default_factory=dict)
    log: Hash = field(default_factory=dict)
    """The view's log, read after the view."""
    story: Story = field(default_factory=Story)
    """The aggregate's events, read after the log."""
    reached: bool = False
    """Whether the projection's progress said that the target is in the view."""

    problems: list[Problem] = field(default_factory=list)
    version: int = 0
    """The view's version, as far as it could be compared."""
    expected: Any = None
    """The message that the events demand at that version."""
    added: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """What the view says that counters hold of it, by total key and counter."""
    tallied: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """What the events up to that version add for ever, by tally key and counter."""

    @property
    def id(self) -> str:
        """The view's id."""
        return streams.aggregate_id(self.stream)

    @property
    def revision(self) -> bytes | None:
        """How often the view was written."""
        return self.found.get(b"revision")

    def says(self, text: str, *, waits: bool = False) -> None:
        """Note a problem."""
        self.problems.append(Problem("views", f"view {self.reading.name} {self.id}", text, waits))


def compare(case: Case, standby: bool) -> None:
    """Compare a view with the fold of its events at its own version.

    Args:
        case: the view.
        standby: whether the events may be behind it.
    """
    found, story, target = case.found, case.story, case.target
    if not found:
        if target:
            case.says(f"it is missing, the aggregate is at version {target}", waits=not case.reached)
        return
    version, parked = _number(found, b"version"), found.get(b"parked")
    if parked:
        text, retrying = _parked(parked)
        case.says(text, waits=retrying)
    elif version < target:
        case.says(f"it is at version {version}, the aggregate at {target}", waits=not case.reached)
    if version > len(story.events):
        if story.whole:
            case.says(f"it is at version {version}, the aggregate at {len(story.events)}", waits=standby)
        return
    if version <= 0:
        return
    case.version = version
    at_end = version == len(story.events)
    case.expected = story.latest[case.reading.name] if at_end else case.reading.fold(story.events[:version])
    for text in (*_content(case), *_derived(case)):
        case.says(f"{text} at version {version}")


def _parked(record: bytes) -> tuple[str, bool]:
    """Return why a view is parked, and whether it is tried again."""
    try:
        told = msgspec.json.decode(record)
        retrying = told["state"] == "retrying"
        return f"it is parked at version {told['version']}: {told['error']}", retrying
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"it is parked: {record!r}", False


def _content(case: Case) -> Iterator[str]:
    expected = case.expected
    try:
        actual = type(expected).FromString(case.found.get(b"data", b""))
    except DecodeError:
        yield f"its data is no {expected.DESCRIPTOR.full_name}"
        return
    if actual != expected:
        yield from differences(actual, expected)
    for column, value in case.reading.columns(expected).items():
        shown = case.found.get(column.encode(), b"").decode("utf-8", "replace")
        if shown != value:
            yield f"column {column} shows {shown!r}, the fold says {value!r}"


def _derived(case: Case) -> Iterator[str]:
    """Yield what is wrong with what the hash remembers of indexes and totals."""
    entries = dict.fromkeys(case.reading.indexes(case.expected), 1)
    amounts = {(key, name): amount for key, name, amount in case.reading.totals(case.expected)}
    for name, value in ((b"entries", entries), (b"contributions", amounts), (b"counted", amounts)):
        kept = case.found.get(name, b"")
        if remembered(kept) != value:
            yield f"{name.decode()} is {kept.decode('utf-8', 'replace')}, not what the fold says"
    case.added = remembered(case.found.get(b"counted")) or {}


def remembered(value: bytes | None) -> dict[tuple[str, str], int] | None:
    """Return [[key, member], ...] as 1 for each, [[key, counter, digits], ...] as numbers."""
    try:
        rows = _decode(value) if value else ()
        return {(key, name): int(*amount) if amount else 1 for key, name, *amount in rows}
    except (msgspec.DecodeError, TypeError, ValueError):
        return None


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


def _number(found: Hash, name: bytes) -> int:
    """Return a number; 0 where there is none, -1 where it is something else."""
    value = found.get(name, b"0")
    return int(value) if value.isdigit() else -1


def compare_log(case: Case) -> None:
    """Compare a view's log with the events."""
    if case.reading.log is None:
        return
    told = case.reading.log(case.story.events)
    if case.reading.tallies is not None:
        case.tallied = sums(case.reading.tallies(entry) for entry in told[: case.version])
    numbers = {str(version).encode(): entry for version, entry in enumerate(told, 1)}
    subject = f"history {case.reading.name} {case.id}"
    texts = [text for number, entry in numbers.items() for text in _entry(case, number, entry)]
    if case.story.whole:
        unknown = [name.decode("utf-8", "replace") for name in case.log.keys() - numbers.keys()]
        texts += [f"it has an entry {name}, which no event is behind" for name in unknown]
    case.problems += [Problem("history", subject, text) for text in texts]


def sums(added: Iterable[Iterable[tuple[str, str, int]]]) -> Mapping[tuple[str, str], int]:
    """Return what events add to each counter."""
    found: Counter[tuple[str, str]] = Counter()
    for amounts in added:
        for key, name, amount in amounts:
            found[key, name] += amount
    return found


def _entry(case: Case, number: bytes, expected: Message) -> Iterator[str]:
    data = case.log.get(number)
    if data is None:
        if int(number) <= case.version:
            yield f"it has no entry {number.decode()}"
        return
    try:
        actual = type(expected).FromString(data)
    except DecodeError:
        yield f"entry {number.decode()} is no {expected.DESCRIPTOR.full_name}"
        return
    if actual != expected:
        yield from (f"in entry {number.decode()}, {text}" for text in differences(actual, expected))
