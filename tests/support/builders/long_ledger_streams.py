"""Long streams of the ledger in the in-memory store: accounts with one payment of a cent after the other."""

from datetime import UTC, datetime

from command_server.kernel.ports import EventRow, StoredStream
from tests.support.builders.requests import AGGREGATES
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules.messages import Paid

AT = datetime(2026, 1, 2, tzinfo=UTC)
OTHER_CODE = "other code"
ACCOUNTS = AGGREGATES["ledger.account"]


def add_account(store: MemoryEventStore, account_id: str, events: int) -> str:
    """Add an account whose snapshot is of other code, and therefore wrong; return the stream's name."""
    stream = f"ledger.account.{account_id}"
    type_, data = ACCOUNTS.encode(Paid(account_id, 1))
    store.events += [EventRow(stream, version, type_, data, "{}", AT) for version in range(1, events + 1)]
    store.streams[stream] = StoredStream(events, AT, '{"balance":-9999}', events, OTHER_CODE)
    return stream


def break_event(store: MemoryEventStore, stream: str, version: int) -> None:
    """Replace the data of an event with bytes that do not parse."""
    (index,) = [i for i, row in enumerate(store.events) if (row.stream, row.version) == (stream, version)]
    row = store.events[index]
    store.events[index] = EventRow(stream, version, row.type, b"\xff", row.metadata, row.recorded_at)
