"""Keys of persons: wrapped with a master key, read in batches, and kept for a while."""

from collections.abc import Collection

import pytest
from diptych.ordering.v1.events_pb2 import OrderCancelled
from msgspec.structs import replace

from contracts.key_ring import KeyRing, Purpose
from contracts.personal_data import SubjectKey, seal
from contracts.subject_keys import MasterKeyMissing, RingWrapper, WrappedKey, create_keys
from runtime import subject_keys
from runtime.subject_keys import KEPT, SubjectKeys
from tests.support.builders.personal_events import NAME, make_event
from tests.support.harness.keys import RING, get_ring

WRAPPER = RingWrapper(get_ring)


class Table:
    """The stored keys, and the requests for them."""

    def __init__(self, *keys: WrappedKey) -> None:
        self.keys = {key.id: key for key in keys}
        self.requests: list[set[bytes]] = []

    async def fetch(self, ids: Collection[bytes]) -> list[WrappedKey]:
        self.requests.append(set(ids))
        return [self.keys[id_] for id_ in ids if id_ in self.keys]


async def create(subject: str = "ada") -> tuple[WrappedKey, SubjectKey]:
    wrapped = (await create_keys(WRAPPER, [subject]))[0][subject]
    return wrapped, (await WRAPPER.unwrap([wrapped]))[wrapped.id]


async def test_a_key_is_wrapped_for_itself_alone() -> None:
    (first, _), (second, _) = await create(), await create()
    assert first.wrapped is not None
    assert len(first.wrapped) == 12 + 32 + 16
    moved = replace(second, wrapped=first.wrapped)
    assert list(await WRAPPER.unwrap([first, moved])) == [first.id]


async def test_a_master_key_that_is_missing_is_an_error_and_damage_is_none() -> None:
    wrapped, _ = await create()
    without = KeyRing(key for key in RING.keys.values() if key.purpose != Purpose.PERSONAL)
    with pytest.raises(MasterKeyMissing, match="no key d of the purpose personal"):
        await RingWrapper(lambda: without).unwrap([wrapped])
    assert not RingWrapper(lambda: without).can_wrap
    assert await WRAPPER.unwrap([replace(wrapped, wrapped=b"short")]) == {}
    destroyed = await WRAPPER.unwrap([replace(wrapped, wrapped=None, wrapped_by="gone")])
    assert destroyed == {wrapped.id: SubjectKey(wrapped.id, None)}


async def test_keys_are_read_once_and_again_after_a_while() -> None:
    time, (wrapped, _) = [0.0], await create()
    keys, table = SubjectKeys(WRAPPER, lambda: time[0]), Table(wrapped)
    unknown = b"?" * 16
    assert set(await keys.find([wrapped.id, unknown], table.fetch)) == {wrapped.id}
    await keys.find([wrapped.id], table.fetch)
    assert table.requests == [{wrapped.id, unknown}]
    time[0], table.keys[wrapped.id] = KEPT, replace(wrapped, wrapped=None)
    assert (await keys.find([wrapped.id], table.fetch))[wrapped.id].cipher is None
    assert len(table.requests) == 2


async def test_the_oldest_keys_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_keys, "MAX_KEPT", 2)
    created = [(await create())[0] for _ in range(3)]
    keys, table = SubjectKeys(WRAPPER), Table(*created)
    for each in created:
        await keys.find([each.id], table.fetch)
    await keys.find([each.id for each in created], table.fetch)
    assert table.requests[-1] == {created[0].id}


async def test_events_are_opened_and_what_cannot_be_opened_stays_as_it_is() -> None:
    wrapped, key = await create()
    message = OrderCancelled(order_id="o-1", customer_id="ada", reason=NAME)
    seal(message, "a.b.c", lambda _: key)
    sealed = replace(make_event(OrderCancelled), data=message.SerializeToString())
    moved, broken = replace(sealed, stream="a.b.d"), replace(sealed, data=b"\xff")
    keys, table = SubjectKeys(WRAPPER), Table(wrapped)
    opened = await keys.open([sealed, moved, broken], table.fetch)
    assert OrderCancelled.FromString(opened[0].data).reason == NAME
    assert list(opened[1:]) == [moved, broken]
    events = [make_event(OrderCancelled)]
    assert await keys.open(events, table.fetch) is events
    assert len(table.requests) == 1
