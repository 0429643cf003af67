"""One view in Redis against the fold of its events at the view's own version, without I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from contracts import streams
from contracts.personal_fields import mask_personal
from operations.verify.checks.skipped_events import fold_up_to
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
    archived: bool = False
    """The view is a tombstone."""
    archived_entries: int = 0
    """History entries that are not expected because they are archived."""
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
    version, parked = parse_number(view, b"version"), view.get(b"parked")
    check.archived = b"archived" in view
    if parked:
        text, retrying = _describe_parked(parked)
        check.report(text, transient=retrying)
    elif version < target:
        check.report(f"version {version} in Redis, {target} in PostgreSQL", transient=not check.covered)
    if version > events.last_version:
        if events.complete:
            text = f"version {version} in Redis, {events.last_version} in PostgreSQL"
            check.report(text, transient=standby)
        return
    if version <= 0:
        return
    check.version = version
    check.expected = _fold(check, version)
    compare_content = _compare_tombstone if check.archived else _compare_content
    for text in (*compare_content(check), *_compare_owner(check), *_compare_fields(check)):
        check.report(f"{text} (version {version})")


def _fold(check: ViewCheck, version: int) -> Any:
    """Return the view message that results from the events up to a version."""
    events = check.events
    if events.skipped:
        return fold_up_to(check.spec, events, version, check.view.get(b"data", b""))
    is_latest = version == len(events.events)
    return events.folds[check.spec.name] if is_latest else check.spec.fold(events.events[:version])


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
        yield from list_differences(actual, expected)
    for column, value in check.spec.columns(expected).items():
        shown = check.view.get(column.encode(), b"").decode("utf-8", "replace")
        if shown != value:
            yield f"column {column} is {shown!r}, expected {value!r}"


def _compare_tombstone(check: ViewCheck) -> Iterator[str]:
    if not check.spec.has_ended(check.expected):
        yield "archived, but its aggregate has not ended"
    if b"data" in check.view:
        yield "archived, but has data"


def _compare_owner(check: ViewCheck) -> Iterator[str]:
    """Compare the owner; views that were written before there was one have none until they change."""
    if check.spec.view.owner and (owner := check.view.get(b"owner")) is not None:
        expected = getattr(check.expected, check.spec.view.owner)
        if owner != expected.encode():
            yield f"owner is {owner.decode('utf-8', 'replace')!r}, expected {expected!r}"


def _compare_fields(check: ViewCheck) -> Iterator[str]:
    """Compare the fields that record the view's index entries and contributions."""
    list_entries = check.spec.list_kept_entries if check.archived else check.spec.indexes
    entries = dict.fromkeys(list_entries(check.expected), 1)
    contributions = {
        (key, counter): amount for key, counter, amount in check.spec.contributions(check.expected)
    }
    fields = {b"entries": entries, b"contributions": contributions, b"counted": contributions}
    if check.archived:
        del fields[b"contributions"]
    for name, expected in fields.items():
        value = check.view.get(name, b"")
        if parse_contributions(value) != expected:
            yield f"field {name.decode()} differs from the fold: {value.decode('utf-8', 'replace')}"
    check.contributions = parse_contributions(check.view.get(b"counted")) or {}


def list_differences(actual: Message, expected: Message) -> Iterator[str]:
    """Yield the fields that differ; personal values are masked, since findings are logged."""
    actual_fields, expected_fields = _to_dict(actual), _to_dict(expected)
    names = [
        name
        for name in {**expected_fields, **actual_fields}
        if actual_fields.get(name) != expected_fields.get(name)
    ]
    shown, expected_shown = _mask(actual, actual_fields), _mask(expected, expected_fields)
    for name in names:
        value, expected_value = shown.get(name), expected_shown.get(name)
        yield f"{name} is {_shorten(value)}, expected {_shorten(expected_value)}"
    if not names:
        yield "data has unknown fields"


def _to_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _mask(message: Message, fields: dict[str, Any]) -> dict[str, Any]:
    mask_personal(message, fields)
    return fields


def _shorten(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


def parse_number(view: Hash, name: bytes) -> int:
    """Return a field as a number; 0: the field is missing, -1: it is not a number."""
    value = view.get(name, b"0")
    return int(value) if value.isdigit() else -1
