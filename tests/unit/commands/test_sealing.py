"""Group commit seals personal data: a key for each person, kept only once it is stored."""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from diptych.ordering.v2.events_pb2 import OrderPlaced
from msgspec import structs

from command_server.contexts import ordering
from command_server.contexts.ordering.domain.messages import (
    CancelOrder,
    ChangeShippingAddress,
    ConfirmOrder,
    ShipOrder,
)
from command_server.kernel.context import aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted
from command_server.kernel.ports import StoreConflict, StoredSnapshot
from command_server.kernel.sealing import Sealing
from contracts.key_ring import KeyRing, Purpose
from contracts.sealed_states import list_state_keys
from contracts.subject_keys import RingWrapper, WrappedKey
from runtime.subject_keys import KEPT, SubjectKeys
from tests.support.builders.orders import ADDRESS, ELSEWHERE, PLACE
from tests.support.builders.requests import request
from tests.support.harness.keys import get_ring
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.unit.commands.test_group_commit import execute

KINDS = {name.rpartition(".")[2]: kind for name, kind in command_types(ordering.CONTEXT).items()}
AGGREGATES = aggregate_types((ordering.CONTEXT,))
RECIPIENT = ADDRESS.recipient.encode()


def commits(store: MemoryEventStore, sealing: Sealing | None = None) -> GroupCommit:
    return GroupCommit(store, AGGREGATES, sealing=sealing or Sealing(store.opened))


def ask(command: Any, **options: Any) -> Any:
    return request(command, kind=KINDS[type(command).__name__], **options)


def place(number: int, customer: str = "c-1") -> Any:
    return ask(replace(PLACE, order_id=f"o-{number}", customer_id=customer))


async def test_personal_data_is_sealed_with_one_key_for_each_person() -> None:
    store = MemoryEventStore()
    outcomes = await execute(commits(store), [place(1), place(2), place(3, "c-2")])
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert set(store.subject_keys) == {"c-1", "c-2"}
    sealed = [OrderPlaced.FromString(row.data).groups[0].personal.sealed for row in store.events]
    assert all(RECIPIENT not in row.data for row in store.events)
    assert [each[1:17] for each in sealed] == [
        store.subject_keys[subject].id for subject in ("c-1", "c-1", "c-2")
    ]


async def test_states_are_folded_from_sealed_events() -> None:
    store = MemoryEventStore()
    await execute(commits(store), [place(1)])
    store.streams["ordering.order.o-1"] = replace(store.streams["ordering.order.o-1"], fingerprint="another")
    store.opened = SubjectKeys(RingWrapper(get_ring))
    same, other = (ask(ChangeShippingAddress("o-1", "main", address)) for address in (ADDRESS, ELSEWHERE))
    first, second = await execute(commits(store), [same, other])
    assert (first.versions, second.versions) == ({"ordering.order.o-1": 1}, {"ordering.order.o-1": 2})


async def test_states_are_sealed_and_not_stored_once_the_key_was_destroyed() -> None:
    store, name = MemoryEventStore(), "ordering.order.o-1"
    await execute(commits(store), [place(1)])
    state = store.streams[name].state
    assert state is not None
    assert "Main Street" not in state
    assert list_state_keys(state) == [store.subject_keys["c-1"].id]
    store.subject_keys["c-1"] = structs.replace(store.subject_keys["c-1"], wrapped=None)
    store.opened = SubjectKeys(RingWrapper(get_ring))
    (changed,) = await execute(commits(store), [ask(ConfirmOrder("o-1"))])
    assert changed.versions == {name: 2}
    assert store.streams[name].state is None
    (changed,) = await execute(commits(store), [ask(ShipOrder("o-1", "Swift", "S-17"))])
    assert changed.versions == {name: 3}


async def test_snapshots_of_long_streams_are_sealed() -> None:
    store, subjects = MemoryEventStore(), ("c-1",)
    await execute(commits(store), [place(1)])
    await store.keep_snapshot("a.b.c", "print", StoredSnapshot(1, '{"name": "Ada"}', subjects))
    assert "Ada" not in store.snapshots["a.b.c", "print"].state
    assert await store.read_snapshot("a.b.c", "print") == StoredSnapshot(1, '{"name": "Ada"}')


async def test_a_retry_and_further_commands_of_the_batch_see_a_command_that_lacked_its_key() -> None:
    store, first = MemoryEventStore(), place(1)
    answer, again, other = await execute(commits(store), [first, first, place(1)])
    assert answer == again
    assert other.reason == "ORDER_EXISTS"
    assert len(store.events) == 1


async def test_keys_are_kept_for_further_batches_and_read_again_after_a_while() -> None:
    store, time, reads = MemoryEventStore(), [0.0], list[Mapping[str, WrappedKey]]()

    class Counting(MemoryTransaction):
        async def obtain_keys(self, new: Mapping[str, WrappedKey]) -> Mapping[str, WrappedKey]:
            reads.append(new)
            return await super().obtain_keys(new)

    @asynccontextmanager
    async def begin() -> Any:
        yield Counting(store)

    store.begin = begin  # type: ignore[method-assign]
    sealing = Sealing(store.opened, lambda: time[0])
    for number in (1, 2):
        await execute(commits(store, sealing), [place(number)])
    assert len(reads) == 1
    time[0] = KEPT
    await execute(commits(store, sealing), [place(3)])
    assert len(reads) == 2
    assert len(store.subject_keys) == 1


async def test_a_key_of_a_transaction_without_effect_seals_nothing() -> None:
    store, failures = MemoryEventStore(), [StoreConflict("taken")]

    class Failing(MemoryTransaction):
        async def commit(self, changes: Any) -> None:
            if failures:
                raise failures.pop()
            await super().commit(changes)

    @asynccontextmanager
    async def begin() -> Any:
        yield Failing(store)

    store.begin = begin  # type: ignore[method-assign]
    await execute(commits(store), [place(1)])
    (row,) = store.events
    assert OrderPlaced.FromString(row.data).groups[0].personal.sealed[1:17] == store.subject_keys["c-1"].id


@pytest.mark.parametrize("begins", [False, True])
async def test_without_a_master_key_data_is_recorded_in_clear(begins: bool) -> None:
    ring = KeyRing([key for key in get_ring().keys.values() if begins or key.purpose != Purpose.PERSONAL])
    store = MemoryEventStore()
    await execute(commits(store, Sealing(SubjectKeys(RingWrapper(lambda: ring)))), [place(1)])
    assert (RECIPIENT in store.events[0].data, bool(store.subject_keys)) == (not begins, begins)


async def test_a_cancelled_order_names_its_customer() -> None:
    store = MemoryEventStore()
    await execute(commits(store), [place(1)])
    await execute(commits(store), [ask(CancelOrder("o-1", "my wife has left me"))])
    assert b"wife" not in store.events[1].data
    assert b"c-1" in store.events[1].data
