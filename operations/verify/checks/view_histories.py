"""One view's history entries in Redis against the fold of its events, without I/O."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from google.protobuf.message import DecodeError, Message

from operations.verify.checks.views import ViewCheck, list_differences, parse_number
from operations.verify.model import Problem, limit_problems


def compare_history(check: ViewCheck) -> None:
    """Compare a view's history entries with the events."""
    spec = check.spec
    if spec.history is None:
        return
    first = _find_first_entry(check, check.events.last_version)
    check.archived_entries = min(first - 1, check.version)
    subject = f"history {spec.name} {check.id}"
    texts = chain(
        _compare_entries(check, spec.history(check.events.events), first), _find_unknown_entries(check, first)
    )
    check.problems += limit_problems(Problem("history", subject, text) for text in texts)


def _compare_entries(check: ViewCheck, entries: Iterable[Message], first: int) -> Iterator[str]:
    """Compare the entries from a version on, and sum the contributions of all that the view includes."""
    sums: Counter[tuple[str, str]] = Counter()
    for version, entry in zip(check.events.list_versions(), entries, strict=False):
        if check.spec.event_contributions is not None and version <= check.version:
            for key, counter, amount in check.spec.event_contributions(entry):
                sums[key, counter] += amount
        if version >= first:
            yield from _compare_entry(check, b"%d" % version, entry)
    check.event_contributions = sums


def _find_unknown_entries(check: ViewCheck, first: int) -> Iterator[str]:
    """Yield a text for each entry that should not be there: the first one has the version `first`."""
    if not check.events.complete:
        return
    listed = check.events.list_versions()
    versions = frozenset(listed) if check.events.skipped else listed
    for name in check.history:
        version = int(name) if name.isdigit() and b"%d" % int(name) == name else 0
        text = name.decode("utf-8", "replace")
        if version not in versions:
            yield f"entry {text} has no event" + (" that counts" if version in check.events.skipped else "")
        # A parked view may be folded again at the moment, which writes all of its entries.
        elif version < first and b"parked" not in check.view:
            yield f"entry {text} was archived"


def _find_first_entry(check: ViewCheck, events: int) -> int:
    """Return the first version that must have an entry: none of an archived view."""
    if check.archived:
        return events + 1
    first = parse_number(check.view, b"history_from") or 1
    if 1 <= first <= max(check.version, 1):
        return first
    value = check.view.get(b"history_from", b"").decode("utf-8", "replace")
    check.problems.append(
        Problem("history", f"history {check.spec.name} {check.id}", f"history_from is {value}")
    )
    return 1


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
        yield from (f"entry {number.decode()}: {text}" for text in list_differences(actual, expected))
