"""A projection of accounts that fails at chosen payments, and long histories of accounts."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from contracts import streams
from contracts.envelope import RecordedEvent
from operations.verify.model import Event
from projector.projection import Projection
from tests.support.harness.projection_run import EventPublisher
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import ACCOUNT_SPEC, day_counters, paid, recorded
from tests.support.ledger.projections import ACCOUNT, create_account_entry, day_contributions
from tests.support.ledger.stubs import events

HOT = "a-hot"
NEIGHBOURS = [
    name
    for name in (f"a-{number}" for number in range(200))
    if streams.partition(name) == streams.partition(HOT)
]
"""Accounts in the partition of HOT."""


class FragileAccounts:
    """A projection of accounts whose handler fails at payments of the amounts in `poison`."""

    def __init__(self, *poison: int) -> None:
        self.poison = set(poison)
        self.handled = 0
        """Payments that were handled, repetitions included."""
        self.projection = Projection[Any](
            ACCOUNT,
            events=EVENTS,
            history=create_account_entry,
            event_contributions=day_contributions,
        )
        self.projection.on(events.Paid)(self.pay)

    def pay(self, account: Any, event: Any) -> None:
        self.handled += 1
        if event.amount in self.poison:
            raise RuntimeError(f"cannot pay {event.amount}")
        account.account_id = event.account_id
        account.balance += event.amount


def list_payments(account_id: str, count: int, **special: int) -> list[RecordedEvent]:
    """Return payments of 1; `v7=13` makes the one of version 7 a payment of 13."""
    return [
        recorded(version, paid(account_id, special.get(f"v{version}", 1))) for version in range(1, count + 1)
    ]


async def publish_all(publisher: EventPublisher, history: Sequence[RecordedEvent]) -> None:
    for start in range(0, len(history), 2_000):
        await publisher.publish(*history[start : start + 2_000])


async def read_fields(redis: Redis, account_id: str = HOT) -> dict[str, bytes]:
    """Return the fields of an account's hash."""
    fields: Any = await redis.hgetall(ACCOUNT.key(account_id))
    return {name.decode(): value for name, value in fields.items()}


async def read_version(redis: Redis, account_id: str = HOT) -> int:
    return int(await redis.hget(ACCOUNT.key(account_id), "version") or 0)


async def is_parked(redis: Redis, account_id: str = HOT) -> bool:
    return bool(await redis.hexists(ACCOUNT.key(account_id), "parked"))


async def is_complete(redis: Redis, *histories: Sequence[RecordedEvent]) -> bool:
    """Return whether each account is at its last event, and none is parked or listed as parked."""
    for history in histories:
        account_id = streams.aggregate_id(history[0].stream)
        if await read_version(redis, account_id) != len(history) or await is_parked(redis, account_id):
            return False
    return not await redis.exists(ACCOUNT.parked)


async def assert_accounts(redis: Redis, *histories: Sequence[RecordedEvent]) -> None:
    """Assert that Redis has these accounts with their histories, and each payment once in its day."""
    assert ACCOUNT_SPEC.history is not None
    for history in histories:
        parsed = [Event(event, EVENTS.decode(event)) for event in history]
        account_id = streams.aggregate_id(history[0].stream)
        fields = await read_fields(redis, account_id)
        assert ACCOUNT.message.FromString(fields["data"]) == ACCOUNT_SPEC.fold(parsed)
        entries: Any = await redis.hgetall(ACCOUNT.history(account_id))
        expected: Any = ACCOUNT_SPEC.history(parsed)
        assert len(entries) == len(expected)
        for entry in expected:
            assert type(entry).FromString(entries[str(entry.version).encode()]) == entry
    for key, sums in day_counters(histories).items():
        counters: Any = await redis.hgetall(key)
        assert {name.decode(): int(amount) for name, amount in counters.items()} == sums
