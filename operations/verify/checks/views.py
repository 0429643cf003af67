"""One view in Redis against the fold of its events at the view's own version, without I/O."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from contracts import streams
from operations.verify.checks.stored_streams import MAX_VALUE_LENGTH, StreamEvents
from operations.verify.model import Problem, ProjectionSpec
from operations.verify.sources import parse_contributions

Hash = Mapping[bytes, bytes]
"""All fields of a hash in Redis; empty where the key is missing."""


@dataclass
class ViewCheck:
    """One view: the data that was read for it, and the results of the comparison."""

    stream: str
    spec: ProjectionSpec
    target_version: int
    """The aggregate's version before the view was read."""
    view: Hash = field(default_factory=dict)
    history: Hash = field(default_factory=dict)
    """The view's history entries, read after the view."""
    events: StreamEvents = field(default_factory=StreamEvents)
    """The aggregate's events, read after the history entries."""
    covered: bool = False
    """The projection's checkpoint promises that the view includes the target version."""

    problems: list[Problem] = field(default_factory=list)
    version: int = 0
    """The view's version; 0 where the view could not be compared."""
    expected: Any = None
    """The view message that results from the events up to that version."""
    contributions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """The contributions that counters hold, according to the view's field `counted`."""
    event_contributions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """The contributions of the events up to the view's version."""

    @property
    def id(self) -> str:
        return streams.aggregate_id(self.stream)

    @property
    def revision(self) -> bytes | None:
        return self.view.get(b"revision")

    def report(self, text: str, *, transient: bool = False) -> None:
        self.problems.append(Problem("views", f"view {self.spec.name} {self.id}", text, transient))


def compare_view(check: ViewCheck, standby: bool) -> None:
    """Compare a view with the fold of its events at the view's own version.

    Args:
        check: the view; receives the problems.
        standby: the events may be behind the view.
    """
    view, events, target = check.view, check.events, check.target_version
    if not view:
        if target:
            check.report(f"missing in Redis, version {target} in PostgreSQL", transient=not check.covered)
        return
    version, parked = _parse_number(view, b"version"), view.get(b"parked")
    if parked:
        text, retrying = _describe_parked(parked)
        check.report(text, transient=retrying)
    elif version < target:
        check.report(f"version {version} in Redis, {target} in PostgreSQL", transient=not check.covered)
    if version > len(events.events):
        if events.complete:
            text = f"version {version} in Redis, {len(events.events)} in PostgreSQL"
            check.report(text, transient=standby)
        return
    if version <= 0:
        return
    check.version = version
    latest = version == len(events.events)
    check.expected = events.folds[check.spec.name] if latest else check.spec.fold(events.events[:version])
    for text in (*_compare_content(check), *_compare_fields(check)):
        check.report(f"{text} (version {version})")


def _describe_parked(record: bytes) -> tuple[str, bool]:
    """Return the finding for a parked view, and whether the projector still retries it."""
    try:
        parked = msgspec.json.decode(record)
        retrying = parked["state"] == "retrying"
        return f"parked at version {parked['version']}: {parked['error']}", retrying
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"parked, with an invalid record: {record!r}", False


def _compare_content(check: ViewCheck) -> Iterator[str]:
    expected = check.expected
    try:
        actual = type(expected).FromString(check.view.get(b"data", b""))
    except DecodeError:
        yield f"data does not parse as {expected.DESCRIPTOR.full_name}"
        return
    if actual != expected:
        yield from _list_differences(actual, expected)
    for column, value in check.spec.columns(expected).items():
        shown = check.view.get(column.encode(), b"").decode("utf-8", "replace")
        if shown != value:
            yield f"column {column} is {shown!r}, expected {value!r}"


def _compare_fields(check: ViewCheck) -> Iterator[str]:
    """Compare the fields that record the view's index entries and contributions."""
    entries = dict.fromkeys(check.spec.indexes(check.expected), 1)
    contributions = {
        (key, counter): amount for key, counter, amount in check.spec.contributions(check.expected)
    }
    fields = ((b"entries", entries), (b"contributions", contributions), (b"counted", contributions))
    for name, expected in fields:
        value = check.view.get(name, b"")
        if parse_contributions(value) != expected:
            yield f"field {name.decode()} differs from the fold: {value.decode('utf-8', 'replace')}"
    check.contributions = parse_contributions(check.view.get(b"counted")) or {}


def _list_differences(actual: Message, expected: Message) -> Iterator[str]:
    actual_fields, expected_fields = _to_dict(actual), _to_dict(expected)
    names = [
        name
        for name in {**expected_fields, **actual_fields}
        if actual_fields.get(name) != expected_fields.get(name)
    ]
    for name in names:
        value, expected_value = actual_fields.get(name), expected_fields.get(name)
        yield f"{name} is {_shorten(value)}, expected {_shorten(expected_value)}"
    if not names:
        yield "data has unknown fields"


def _to_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _shorten(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


def _parse_number(view: Hash, name: bytes) -> int:
    """Return a field as a number; 0: the field is missing, -1: it is not a number."""
    value = view.get(name, b"0")
    return int(value) if value.isdigit() else -1


def compare_history(check: ViewCheck) -> None:
    """Compare a view's history entries with the events."""
    spec = check.spec
    if spec.history is None:
        return
    entries = spec.history(check.events.events)
    if spec.event_contributions is not None:
        check.event_contributions = _sum_contributions(
            spec.event_contributions(entry) for entry in entries[: check.version]
        )
    expected = {str(version).encode(): entry for version, entry in enumerate(entries, 1)}
    subject = f"history {spec.name} {check.id}"
    texts = [text for number, entry in expected.items() for text in _compare_entry(check, number, entry)]
    if check.events.complete:
        unknown = [name.decode("utf-8", "replace") for name in check.history.keys() - expected.keys()]
        texts += [f"entry {name} has no event" for name in unknown]
    check.problems += [Problem("history", subject, text) for text in texts]


def _sum_contributions(
    contributions: Iterable[Iterable[tuple[str, str, int]]],
) -> Mapping[tuple[str, str], int]:
    sums: Counter[tuple[str, str]] = Counter()
    for amounts in contributions:
        for key, counter, amount in amounts:
            sums[key, counter] += amount
    return sums


def _compare_entry(check: ViewCheck, number: bytes, expected: Message) -> Iterator[str]:
    data = check.history.get(number)
    if data is None:
        if int(number) <= check.version:
            yield f"entry {number.decode()} is missing"
        return
    try:
        actual = type(expected).FromString(data)
    except DecodeError:
        yield f"entry {number.decode()} does not parse as {expected.DESCRIPTOR.full_name}"
        return
    if actual != expected:
        yield from (f"entry {number.decode()}: {text}" for text in _list_differences(actual, expected))
