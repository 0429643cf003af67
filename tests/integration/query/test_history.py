"""GetOrderHistory: pages of what happened, newest first."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from diptych.ordering.v1.events_pb2 import OrderHeld
from diptych.ordering.v1.query_service_pb2 import GetOrderHistoryRequest, GetOrderHistoryResponse
from diptych.ordering.v1.types_pb2 import OrderHistoryEntry
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import consistency_tokens, page_tokens
from query_server.contexts import ordering
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import HISTORIES, INCARNATION, ReadModel, read_model


@pytest.fixture
async def model(redis_url: str) -> AsyncIterator[ReadModel]:
    async with read_model(redis_url) as model:
        yield model


def entry(version: int) -> OrderHistoryEntry:
    history_entries = OrderHistoryEntry(
        version=version, event_type=OrderHeld.DESCRIPTOR.full_name, actor="ada"
    )
    history_entries.event.Pack(OrderHeld(order_id="o-1", reason=f"{version}"))
    return history_entries


def entries(count: int) -> list[OrderHistoryEntry]:
    return [entry(version) for version in range(1, count + 1)]


async def ask(
    model: ReadModel, remaining: float | None = None, order_id: str = "o-1", **request: Any
) -> GetOrderHistoryResponse:
    answer = await ordering.get_order_history(
        model.histories, GetOrderHistoryRequest(order_id=order_id, **request), remaining
    )
    return GetOrderHistoryResponse.FromString(answer)


async def refused(model: ReadModel, **request: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await ask(model, **request)
    return error.value


async def test_what_happened_is_told_newest_first_as_it_is_stored(model: ReadModel) -> None:
    await model.tell("o-1", *entries(3))
    page = await ask(model)
    assert list(page.entries) == [entry(3), entry(2), entry(1)]
    assert page.next_page_token == ""


async def test_a_page_holds_twenty_entries_where_the_request_does_not_say(model: ReadModel) -> None:
    await model.tell("o-1", *entries(21))
    first = await ask(model)
    assert [history_entries.version for history_entries in first.entries] == list(range(21, 1, -1))
    second = await ask(model, page_token=first.next_page_token)
    assert [history_entries.version for history_entries in second.entries] == [1]
    assert second.next_page_token == ""


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    there=st.integers(1, 12),
    coming=st.lists(st.integers(0, 3), max_size=12),
    sizes=st.lists(st.integers(1, 5), min_size=1),
)
async def test_while_more_happens_every_entry_of_the_first_page_on_is_told_once(
    model: ReadModel, there: int, coming: list[int], sizes: list[int]
) -> None:
    await model.tell("o-1", *entries(there))
    seen: list[int] = []
    now, number, page_token = there, 0, ""
    while number == 0 or page_token:
        page = await ask(model, page_size=sizes[number % len(sizes)], page_token=page_token)
        seen += [history_entries.version for history_entries in page.entries]
        page_token = page.next_page_token
        now += coming[number] if number < len(coming) else 0
        await model.tell("o-1", *entries(now))
        number += 1
    assert seen == list(range(there, 0, -1))


async def test_an_order_that_is_not_there_has_no_history(model: ReadModel) -> None:
    for token in ("", consistency_tokens.mint(INCARNATION, {"inventory.item.i-1": 1})):
        error = await refused(model, at_least_as_fresh=token)
        assert (error.reason, error.code) == ("ORDER_NOT_FOUND", StatusCode.NOT_FOUND)
        assert error.metadata == {"order_id": "o-1"}


async def test_an_order_whose_first_event_cannot_be_told_is_not_found(model: ReadModel) -> None:
    await model.redis.hset(HISTORIES.key("o-1"), mapping={"version": "0", "parked": "{}"})
    assert (await refused(model)).reason == "ORDER_NOT_FOUND"


async def test_a_history_says_nothing_while_the_projection_is_rebuilt(model: ReadModel) -> None:
    await model.tell("o-1", *entries(2))
    await model.begin_rebuilding()
    for token in ("", consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 1})):
        assert (await refused(model, at_least_as_fresh=token)).reason == "VIEW_REBUILDING"


async def test_a_history_whose_entries_are_wiped_while_it_is_read_is_being_rebuilt(model: ReadModel) -> None:
    await model.tell("o-1", *entries(2))
    await model.redis.delete(HISTORIES.history("o-1"))
    assert (await refused(model)).reason == "VIEW_REBUILDING"


async def test_a_history_waits_for_its_token(model: ReadModel) -> None:
    token = consistency_tokens.mint(INCARNATION, {"ordering.order.o-1": 3})
    await model.tell("o-1", *entries(2))
    assert (await refused(model, at_least_as_fresh=token, remaining=0.1)).reason == "VIEW_BEHIND"
    await model.tell("o-1", *entries(3))
    assert len((await ask(model, at_least_as_fresh=token)).entries) == 3


async def test_a_page_token_of_another_order_is_refused(model: ReadModel) -> None:
    for order_id in ("o-1", "o-2"):
        await model.tell(order_id, *entries(3))
    token = (await ask(model, page_size=1)).next_page_token
    assert (await refused(model, order_id="o-2", page_token=token)).reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("claimed", ["x", "-1", "1.5", "¹", " 2"])
async def test_a_made_up_page_token_is_refused(model: ReadModel, claimed: str) -> None:
    await model.tell("o-1", *entries(3))
    token = page_tokens.mint(HISTORIES.history("o-1"), claimed)
    assert (await refused(model, page_token=token)).reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize(("claimed", "told"), [("0", []), ("1", []), ("3", [2, 1]), ("9" * 300, [3, 2, 1])])
async def test_a_page_token_that_follows_on_no_version_of_the_order_harms_nobody(
    model: ReadModel, claimed: str, history_entries: list[int]
) -> None:
    await model.tell("o-1", *entries(3))
    page = await ask(model, page_token=page_tokens.mint(HISTORIES.history("o-1"), claimed))
    assert [each.version for each in page.entries] == history_entries
