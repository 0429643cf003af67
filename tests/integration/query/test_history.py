"""GetChequeHistory: pages of a history, newest first."""

from typing import Any

import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.keys import TOKENS, mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, respond
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import HISTORY
from tests.support.ledger.stubs import events, queries, types


def make_entry(version: int) -> Any:
    entry = types.ChequeHistoryEntry(
        version=version, event_type=events.ChequeEndorsed.DESCRIPTOR.full_name, actor="ada"
    )
    entry.event.Pack(events.ChequeEndorsed(cheque_id="c-1", endorser=f"{version}"))
    return entry


def make_entries(count: int) -> list[Any]:
    return [make_entry(version) for version in range(1, count + 1)]


async def get_history(
    model: ReadModel, remaining: float | None = None, cheque_id: str = "c-1", **request: Any
) -> Any:
    data = await respond(
        ledger.get_cheque_history,
        model.histories,
        queries.GetChequeHistoryRequest(cheque_id=cheque_id, **request),
        remaining,
    )
    return queries.GetChequeHistoryResponse.FromString(data)


async def get_error(model: ReadModel, **request: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await get_history(model, **request)
    return error.value


async def test_entries_are_returned_newest_first_as_they_are_stored(model: ReadModel) -> None:
    await model.put_history("c-1", *make_entries(3))
    page = await get_history(model)
    assert list(page.entries) == [make_entry(3), make_entry(2), make_entry(1)]
    assert page.next_page_token == ""


async def test_a_page_holds_twenty_entries_by_default(model: ReadModel) -> None:
    await model.put_history("c-1", *make_entries(21))
    first = await get_history(model)
    assert [entry.version for entry in first.entries] == list(range(21, 1, -1))
    second = await get_history(model, page_token=first.next_page_token)
    assert [entry.version for entry in second.entries] == [1]
    assert second.next_page_token == ""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    initial=st.integers(1, 12),
    arriving=st.lists(st.integers(0, 3), max_size=12),
    sizes=st.lists(st.integers(1, 5), min_size=1),
)
async def test_pages_list_every_initial_entry_once_while_events_arrive(
    model: ReadModel, initial: int, arriving: list[int], sizes: list[int]
) -> None:
    await model.put_history("c-1", *make_entries(initial))
    listed: list[int] = []
    count, number, page_token = initial, 0, ""
    while number == 0 or page_token:
        page = await get_history(model, page_size=sizes[number % len(sizes)], page_token=page_token)
        listed += [entry.version for entry in page.entries]
        page_token = page.next_page_token
        count += arriving[number] if number < len(arriving) else 0
        await model.put_history("c-1", *make_entries(count))
        number += 1
    assert listed == list(range(initial, 0, -1))


async def test_a_missing_aggregate_has_no_history(model: ReadModel) -> None:
    for token in ("", mint_token(INCARNATION, {"other.item.i-1": 1})):
        error = await get_error(model, at_least_as_fresh=token)
        assert (error.reason, error.code) == ("CHEQUE_NOT_FOUND", StatusCode.NOT_FOUND)
        assert error.metadata == {"cheque_id": "c-1"}


async def test_an_aggregate_whose_first_event_is_parked_is_not_found(model: ReadModel) -> None:
    await model.redis.hset(HISTORY.key("c-1"), mapping={"version": "0", "parked": "{}"})
    assert (await get_error(model)).reason == "CHEQUE_NOT_FOUND"


async def test_a_history_is_refused_during_a_rebuild(model: ReadModel) -> None:
    await model.put_history("c-1", *make_entries(2))
    await model.mark_rebuilding()
    for token in ("", mint_token(INCARNATION, {"ledger.cheque.c-1": 1})):
        assert (await get_error(model, at_least_as_fresh=token)).reason == "VIEW_REBUILDING"


async def test_missing_entries_of_a_version_that_is_gone_mean_a_rebuild(
    model: ReadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await model.put_history("c-1", *make_entries(2))

    find_range = FreshReader.get_history

    async def find_range_and_clear(reader: FreshReader, view_id: str, missing: NotFound) -> range:
        versions = await find_range(reader, view_id, missing)
        await model.redis.delete(HISTORY.key("c-1"), HISTORY.history("c-1"))
        return versions

    monkeypatch.setattr(FreshReader, "get_history", find_range_and_clear)
    assert (await get_error(model)).reason == "VIEW_REBUILDING"


async def damage_history(model: ReadModel) -> None:
    """Damage the second and remove the third of four entries."""
    await model.put_history("c-1", *make_entries(4))
    await model.redis.hset(HISTORY.history("c-1"), "2", b"\xff\xff")
    await model.redis.hdel(HISTORY.history("c-1"), "3")


@pytest.mark.parametrize("size", [1, 2, 20])
async def test_an_entry_that_cannot_be_read_has_its_version_alone(model: ReadModel, size: int) -> None:
    await damage_history(model)
    listed, token = [], None
    while token != "":
        page = await get_history(model, page_size=size, page_token=token or "")
        listed += list(page.entries)
        token = page.next_page_token
    empty = [types.ChequeHistoryEntry(version=version) for version in (3, 2)]
    assert listed == [make_entry(4), *empty, make_entry(1)]


async def test_a_history_of_another_type_is_unreadable_and_no_other(model: ReadModel) -> None:
    for cheque_id in ("c-1", "c-2"):
        await model.put_history(cheque_id, *make_entries(2))
    await model.redis.delete(HISTORY.history("c-1"))
    await model.redis.rpush(HISTORY.history("c-1"), "x")
    error = await get_error(model)
    assert (error.reason, error.metadata) == ("VIEW_UNREADABLE", {"key": HISTORY.history("c-1")})
    assert len((await get_history(model, cheque_id="c-2")).entries) == 2


async def test_a_history_waits_for_its_token(model: ReadModel) -> None:
    token = mint_token(INCARNATION, {"ledger.cheque.c-1": 3})
    await model.put_history("c-1", *make_entries(2))
    assert (await get_error(model, at_least_as_fresh=token, remaining=0.1)).reason == "VIEW_BEHIND"
    await model.put_history("c-1", *make_entries(3))
    assert len((await get_history(model, at_least_as_fresh=token)).entries) == 3


async def test_a_page_token_of_another_history_is_refused(model: ReadModel) -> None:
    for cheque_id in ("c-1", "c-2"):
        await model.put_history(cheque_id, *make_entries(3))
    token = (await get_history(model, page_size=1)).next_page_token
    assert (await get_error(model, cheque_id="c-2", page_token=token)).reason == "PAGE_TOKEN_INVALID"


def mint_page_token(claimed: str) -> str:
    return TOKENS.mint_page_token(queries.GetChequeHistoryRequest(), HISTORY.history("c-1"), claimed)


@pytest.mark.parametrize("claimed", ["x", "-1", "1.5", "¹", " 2"])
async def test_a_page_token_without_a_version_is_refused(model: ReadModel, claimed: str) -> None:
    await model.put_history("c-1", *make_entries(3))
    token = mint_page_token(claimed)
    assert (await get_error(model, page_token=token)).reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize(
    ("claimed", "versions"), [("0", []), ("1", []), ("3", [2, 1]), ("9" * 300, [3, 2, 1])]
)
async def test_a_version_in_a_page_token_is_limited_to_the_history(
    model: ReadModel, claimed: str, versions: list[int]
) -> None:
    await model.put_history("c-1", *make_entries(3))
    page = await get_history(model, page_token=mint_page_token(claimed))
    assert [entry.version for entry in page.entries] == versions
