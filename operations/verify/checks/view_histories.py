"""One view's history entries in Redis against the fold of its events, without I/O."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError, Message

from operations.verify.checks.views import ViewCheck, list_differences, parse_number
from operations.verify.model import Problem


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
    first = _find_first_entry(check, len(entries))
    check.archived_entries = min(first - 1, check.version)
    expected = {str(version).encode(): entry for version, entry in enumerate(entries, 1) if version >= first}
    subject = f"history {spec.name} {check.id}"
    texts = [text for number, entry in expected.items() for text in _compare_entry(check, number, entry)]
    if check.events.complete:
        unknown = [name.decode("utf-8", "replace") for name in check.history.keys() - expected.keys()]
        # A parked view may be folded again at the moment, which writes all of its entries.
        known = {str(version) for version in range(1, first)}
        if b"parked" in check.view:
            unknown = [name for name in unknown if name not in known]
        texts += [f"entry {name} {'was archived' if name in known else 'has no event'}" for name in unknown]
    check.problems += [Problem("history", subject, text) for text in texts]


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
        yield from (f"entry {number.decode()}: {text}" for text in list_differences(actual, expected))
