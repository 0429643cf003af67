"""Events and hashes in files are what the same ones in memory are."""

import random
import secrets
from itertools import count

import msgspec
import pytest
from diptych.banking.v1 import events_pb2
from google.type.money_pb2 import Money

from contracts.envelope import RecordedEvent
from contracts.events.banking import EVENTS
from operations.verify import events as folds
from operations.verify import spool
from operations.verify.checks.stored_streams import check_versions, find_version, fold_events, parse_events
from operations.verify.contexts import banking
from operations.verify.model import MAX_PROBLEMS, Event, Problem, limit_problems
from operations.verify.sources import StoredStream
from operations.verify.sources.postgres_reader import OutboxRow, OutboxRows
from operations.verify.spool import ParsedEvents, SpooledEvents, SpooledHash
from tests.support.ledger import histories


def list_account_events(number: int) -> list[RecordedEvent]:
    """Return the events of an account with random deposits and withdrawals."""
    rng = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    opened = events_pb2.AccountOpened(account_id="a", owner_id="ada", currency_code="EUR")
    opened.overdraft_limit.CopyFrom(Money(currency_code="EUR", units=10**6))
    opened.opened_at.FromDatetime(histories.START)
    balance, messages = 0, [opened]
    for _ in range(number - 1):
        units, kind = rng.randrange(1, 100), rng.choice(["deposited", "withdrawn"])
        balance += units if kind == "deposited" else -units
        message = getattr(events_pb2, f"Money{kind.capitalize()}")(
            account_id="a", reference="r" * rng.randrange(90)
        )
        message.amount.CopyFrom(Money(currency_code="EUR", units=units))
        message.balance.CopyFrom(Money(currency_code="EUR", units=balance))
        message.held.currency_code = "EUR"
        getattr(message, f"{kind}_at").FromDatetime(histories.START)
        messages.append(message)
    return [
        RecordedEvent(
            "banking.account.a",
            *(version, message.DESCRIPTOR.full_name, message.SerializeToString()),
            *(histories.START, version, {"actor": "ada"}),
        )
        for version, message in enumerate(messages, 1)
    ]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BLOCK_BYTES", 1_000)


def test_spooled_events_are_the_same_sequence() -> None:
    events = list_account_events(100)
    spooled = SpooledEvents(events[:50])
    assert list(spooled) == events[:50]
    for event in events[50:]:  # after a read, too
        spooled.append(event)
    assert list(spooled) == events
    assert [spooled[index] for index in (0, 57, 99, -1)] == [events[index] for index in (0, 57, 99, -1)]
    assert list(spooled[10:90][5:-5]) == events[15:85]
    assert list(spooled[10:90][5:-5].list_versions()) == list(range(16, 86))
    with pytest.raises(IndexError):
        spooled[10:20][10]
    wanted = events[1].type
    assert list(spooled[:40].select([wanted])) == [e for e in events[:40] if e.type == wanted]
    assert not SpooledEvents()


def test_folds_of_spooled_events_are_the_same() -> None:
    records = list_account_events(200)
    in_memory = [Event(record, EVENTS.decode(record)) for record in records]
    spooled = ParsedEvents(SpooledEvents(records), EVENTS, {})
    assert list(spooled) == in_memory
    assert banking.fold_account_snapshot(spooled) == banking.fold_account_snapshot(in_memory)
    assert banking.fold_ledger(spooled[:77]) == banking.fold_ledger(in_memory[:77])
    assert list(banking.list_transactions(spooled)) == list(banking.list_transactions(in_memory))
    kinds = (events_pb2.MoneyWithdrawn, events_pb2.AccountFrozen)
    assert folds.select(spooled, *kinds) == folds.select(in_memory, *kinds)
    assert folds.find_last(spooled, *kinds) == folds.find_last(in_memory, *kinds)


def test_a_spooled_stream_has_the_same_problems() -> None:
    records = list_account_events(20)
    del records[7]
    records[12] = msgspec.structs.replace(records[12], data=b"\xff")
    results = []
    for events in (records, SpooledEvents(records)):
        stream = StoredStream("banking.account.a", events=events)
        parsed, problems = parse_events(stream, EVENTS)
        assert find_version(events, 8) is None
        assert find_version(events, 9) == records[7]
        folded, _ = fold_events(banking.AGGREGATES[0], stream, parsed)
        results.append((list(check_versions(stream)), list(parsed), list(problems), list(folded.events)))
    assert results[0] == results[1]
    assert [len(events) for events in results[0][1::2]] == [12, 7]


def test_a_spooled_hash_is_the_same_mapping() -> None:
    fields = {b"%d" % number: b"x" * (number % 7) for number in range(1, 300) if number != 13}
    fields |= {b"01": b"a", b"": b"b", b"name": b"c", b"1" * 30: b"d", b"9" * 12: b"f", "²".encode(): b"e"}
    spooled = SpooledHash(len(fields))
    items = list(fields.items())
    spooled.add(items[:200])
    spooled.add(items[150:])  # SCAN may repeat fields
    assert dict(spooled) == fields
    assert len(spooled) == len(fields)
    assert spooled.get(b"13") is None
    assert spooled.get(b"301") is None


def test_outbox_rows_are_found_by_their_positions() -> None:
    rows = OutboxRows()
    expected = {3: OutboxRow("e-1", 7), 5: OutboxRow("", 0), 9: OutboxRow("e-2", 8)}
    for position, row in expected.items():
        rows.add(position, row)
    found = {position: rows.get(position) for position in range(12)}
    assert {position: row for position, row in found.items() if row is not None} == expected


def test_the_problems_of_one_stream_are_limited() -> None:
    numbers = count(1)
    problems = [Problem("history", "h", f"entry {next(numbers)}") for _ in range(MAX_PROBLEMS + 5)]
    limited = list(limit_problems(problems))
    assert limited[:-1] == problems[:MAX_PROBLEMS]
    assert limited[-1].text == f"entry {MAX_PROBLEMS + 1}; and 4 more problems like this"
    assert list(limit_problems(problems[:3])) == problems[:3]
