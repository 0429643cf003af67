"""A person is forgotten in PostgreSQL: their key is gone, and each of their streams says so, once."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from diptych.privacy.v1.privacy_pb2 import SubjectForgotten

from command_server.contexts import ordering
from command_server.contexts.ordering.domain.messages import CancelOrder, ChangeShippingAddress, ConfirmOrder
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted, Rejection
from command_server.kernel.sealing import Sealing
from command_server.postgres.event_store import PostgresEventStore
from contracts.forgetting import FORGOTTEN
from contracts.key_ring import KeyRing
from contracts.subject_keys import MasterKeyMissing, RingWrapper, WrappedKey
from operations.audit.chains import verify_chains
from operations.audit.findings import Report
from operations.subjects import forgetting, rewrapping
from operations.subjects.forgetting import Forgotten, forget, read_receipts
from runtime.subject_keys import SubjectKeys
from tests.support.builders.orders import ELSEWHERE, PLACE
from tests.support.builders.requests import request
from tests.support.harness.keys import FILE, get_ring
from tests.unit.commands.test_group_commit import execute

KINDS = {name.rpartition(".")[2]: kind for name, kind in command_types(ordering.CONTEXT).items()}
NEW_MASTER = (
    b'{"id": "new", "purpose": "personal", "algorithm": "AES-256-GCM", "state": "active", '
    b'"from": "2026-01-02T00:00:00Z", "secret": "%s"}, ' % (b"b" * 43 + b"=")
)
TYPES = [descriptor.full_name for descriptor in ordering.CONTEXT.events.descriptors]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def run(url: str, *commands: Any, sealed: bool = True) -> Sequence[Any]:
    """Execute commands one after the other, as a command server that has just started."""
    keys = SubjectKeys(RingWrapper(get_ring))
    store = PostgresEventStore(url, keys)
    outcomes = []
    for each in commands:
        commits = GroupCommit(
            store, aggregate_types((ordering.CONTEXT,)), sealing=Sealing(keys) if sealed else None
        )
        outcomes += await execute(commits, [request(each, kind=KINDS[type(each).__name__])])
    await store.close()
    return outcomes


def place(number: int, customer: str = "ada") -> Any:
    return replace(PLACE, order_id=f"o-{number}", customer_id=customer)


async def forget_ada(url: str) -> Forgotten:
    return await forget(url, TYPES, "ada", "she asked", "bob", wait=0.0)


async def test_a_person_is_forgotten_once_in_each_stream(
    database_url: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "SLICE", 2)
    await run(database_url, *(place(number) for number in range(3)), place(3, "bob"))
    done = await forget_ada(database_url)
    names = {f"ordering.order.o-{number}" for number in range(3)}
    assert (done.streams.sealed, done.streams.clear, done.streams.events) == (names, set(), 3)
    again = await forget_ada(database_url)
    assert (again.receipt, again.streams.ended) == (done.receipt, names)
    rows = await database.fetch("SELECT stream, version, data FROM events WHERE type = $1", FORGOTTEN)
    assert {(row["stream"], row["version"]) for row in rows} == {(name, 2) for name in names}
    receipt, event = done.receipt, SubjectForgotten.FromString(rows[0]["data"])
    assert receipt is not None
    assert (event.subject_id, event.key_id) == ("ada", receipt.key_id)
    assert await read_receipts(database_url) == [receipt]
    assert await database.fetchval("SELECT wrapped FROM subject_keys WHERE subject = 'ada'") is None
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE sequence IS NULL") == 7
    acts = await database.fetch("SELECT subject, act, target, reason FROM operator_acts")
    assert [tuple(act) for act in acts] == [("bob", "ForgetSubject", "ada", "she asked")]


async def test_a_forgotten_order_goes_on_without_the_data(database_url: str, database: Any) -> None:
    await run(database_url, place(1), place(2, "bob"))
    await forget_ada(database_url)
    confirmed, moved, cancelled, other = await run(
        database_url,
        ConfirmOrder("o-1"),
        place(4),
        CancelOrder("o-1", "Ada asked"),
        ChangeShippingAddress("o-2", "main", ELSEWHERE),
    )
    assert isinstance(confirmed, Accepted)
    assert confirmed.versions == {"ordering.order.o-1": 3}
    assert isinstance(moved, Rejection)
    assert (moved.reason, moved.details) == ("SUBJECT_FORGOTTEN", {"subject_id": "ada"})
    assert isinstance(cancelled, Accepted)
    assert isinstance(other, Accepted)
    data = await database.fetchval(
        "SELECT data FROM events WHERE stream = 'ordering.order.o-1' AND version = 4"
    )
    assert b"asked" not in data
    assert await database.fetchval("SELECT state FROM streams WHERE id = 'ordering.order.o-1'") is None


async def test_streams_with_data_in_clear_are_named(database_url: str) -> None:
    await run(database_url, place(1), place(2, "bob"), sealed=False)
    unsealed = await forget_ada(database_url)
    assert (unsealed.receipt, unsealed.streams.clear) == (None, {"ordering.order.o-1"})
    await run(database_url, place(3))
    done = await forget_ada(database_url)
    assert (done.streams.sealed, done.streams.clear) == ({"ordering.order.o-3"}, {"ordering.order.o-1"})


async def test_the_digests_of_addresses_are_removed_and_the_chains_are_whole(
    database_url: str, database: Any
) -> None:
    await run(database_url, place(1))
    (position,) = await database.fetchrow("SELECT position FROM events")
    await database.execute("INSERT INTO event_index VALUES ('i', 'confirmed/ada/digest', $1)", position)
    await forget_ada(database_url)
    assert await database.fetchval("SELECT count(*) FROM event_index") == 0
    report = Report(max_findings=20)
    await verify_chains(database, report, lambda _: None)
    assert report.findings == []


async def test_keys_are_wrapped_with_a_new_master_key(
    database_url: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "PAGE", 2)
    await run(database_url, *(place(number, f"customer-{number}") for number in range(5)), place(5))
    await forget_ada(database_url)
    await database.execute("UPDATE subject_keys SET wrapped = '\\x00' WHERE subject = 'customer-0'")
    rotated = KeyRing.parse(FILE.replace(b'{"keys": [', b'{"keys": [' + NEW_MASTER, 1))
    assert await rewrapping.rewrap(database_url, lambda: rotated) == ("new", 4, 1)
    assert await rewrapping.rewrap(database_url, lambda: rotated) == ("new", 0, 1)
    alone = KeyRing(key for key in rotated.keys.values() if key.id != "d")
    rows = await database.fetch("SELECT id, wrapped_by, wrapped FROM subject_keys WHERE wrapped_by = 'new'")
    assert len(await RingWrapper(lambda: alone).unwrap(WrappedKey(*row) for row in rows)) == 4
    assert await database.fetchval("SELECT wrapped FROM subject_keys WHERE subject = 'ada'") is None
    with pytest.raises(MasterKeyMissing):
        await rewrapping.rewrap(database_url, lambda: KeyRing(()))
