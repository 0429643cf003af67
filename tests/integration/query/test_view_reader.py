"""ViewReader and Staleness: a missing view proves absence only while the projection has caught up."""

from time import time

import pytest

from query_server.staleness import Staleness
from query_server.view_reader import Window
from runtime.grpc.metadata import STALENESS as METADATA
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import ReadModel
from tests.support.ledger.stored_views import CHEQUE, cheque


async def test_a_view_is_read_as_it_is_stored(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    assert await model.views.get("c-1") == cheque("c-1").SerializeToString()


async def test_a_view_that_a_ready_projection_lacks_does_not_exist(model: ReadModel) -> None:
    assert await model.views.get("c-1") is None


async def test_a_missing_view_proves_nothing_during_a_rebuild(model: ReadModel) -> None:
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.views.get("c-1")
    assert error.value.reason == "VIEW_REBUILDING"
    assert error.value.retry_after


async def test_an_existing_view_is_served_during_a_rebuild(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    await model.mark_rebuilding()
    assert await model.views.get("c-1") is not None


async def test_a_view_written_between_the_miss_and_the_marker_is_returned(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rebuild ends after the first read has missed; the marker then proves nothing about that read."""
    await model.mark_rebuilding()
    call = model.reader.call

    async def call_then_finish_rebuild(*command: str | bytes | int) -> object:
        reply = await call(*command)
        await model.put(cheque("c-1"))
        await model.mark_ready()
        return reply

    monkeypatch.setattr(model.reader, "call", call_then_finish_rebuild)
    assert await model.views.get("c-1") is not None


async def test_replies_across_a_change_of_incarnation_are_refused(model: ReadModel) -> None:
    restored = ("SET", CHEQUE.ready, "another incarnation")
    with pytest.raises(RpcError) as error:
        await model.views.read_while_ready(restored)
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_list_is_refused_during_a_rebuild(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await model.views.get_members(Window(CHEQUE.index("account", "a-1")), "", 10)
    assert error.value.reason == "VIEW_REBUILDING"


async def test_staleness_is_that_of_the_oldest_partition(model: ReadModel) -> None:
    staleness = Staleness(model.reader, CHEQUE)
    now = int(time() * 1000)
    await model.set_as_of(now)
    await model.set_as_of(now - 7_000, [3])
    await staleness.sample()
    ((key, millis),) = staleness.metadata()
    assert key == METADATA
    assert 7_000 <= int(millis) < 12_000


async def test_staleness_is_unknown_until_every_partition_has_reported(model: ReadModel) -> None:
    staleness = Staleness(model.reader, CHEQUE)
    assert staleness.metadata() == ()
    await model.set_as_of(int(time() * 1000), range(15))
    await staleness.sample()
    assert staleness.metadata() == ()


async def test_staleness_is_never_negative_when_clocks_differ(model: ReadModel) -> None:
    staleness = Staleness(model.reader, CHEQUE)
    await model.set_as_of(int(time() * 1000) + 60_000)
    await staleness.sample()
    assert staleness.metadata() == ((METADATA, "0"),)
