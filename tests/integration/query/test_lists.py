"""GetCheque, BatchGetCheques and ListCheques on a read model that changes."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_server import list_pages
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, record_round_trips, respond
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import CHEQUE, cheque
from tests.support.ledger.stubs import queries, types

WRITTEN, ENDORSED = types.Cheque.STATE_WRITTEN, types.Cheque.STATE_ENDORSED


async def get_page(model: ReadModel, **request: object) -> Any:
    data = await respond(ledger.list_cheques, model.views, queries.ListChequesRequest(**request))
    return queries.ListChequesResponse.FromString(data)


async def list_ids(model: ReadModel, **request: object) -> list[str]:
    return [view.cheque_id for view in (await get_page(model, **request)).cheques]


async def list_all_ids(model: ReadModel, **request: object) -> list[str]:
    ids: list[str] = []
    page_token = ""
    while True:
        page = await get_page(model, page_token=page_token, **request)
        ids += [view.cheque_id for view in page.cheques]
        if not (page_token := page.next_page_token):
            return ids


async def test_a_view_is_returned_as_it_is_stored(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=2))
    answer = await respond(ledger.get_cheque, model.views, queries.GetChequeRequest(cheque_id="c-1"))
    assert answer == queries.GetChequeResponse(cheque=cheque("c-1", version=2)).SerializeToString()


async def test_a_missing_view_is_not_found(model: ReadModel) -> None:
    for token in ("", mint_token(INCARNATION, {"ledger.cheque.c-1": 0})):
        request = queries.GetChequeRequest(cheque_id="c-1", at_least_as_fresh=token)
        with pytest.raises(RpcError) as error:
            await respond(ledger.get_cheque, model.views, request)
        assert error.value.reason == "CHEQUE_NOT_FOUND"
        assert error.value.code == StatusCode.NOT_FOUND
        assert error.value.metadata == {"cheque_id": "c-1"}


async def test_a_view_is_read_with_its_token(model: ReadModel) -> None:
    await model.put(cheque("c-1", version=2))
    token = mint_token(INCARNATION, {"ledger.cheque.c-1": 2})
    answer = await respond(
        ledger.get_cheque, model.views, queries.GetChequeRequest(cheque_id="c-1", at_least_as_fresh=token)
    )
    assert queries.GetChequeResponse.FromString(answer).cheque.version == 2


async def get_batch(
    model: ReadModel, *cheque_ids: str, token: str = "", remaining: float | None = None
) -> Any:
    request = queries.BatchGetChequesRequest(cheque_ids=cheque_ids, at_least_as_fresh=token)
    answer = await respond(ledger.batch_get_cheques, model.views, request, remaining)
    return queries.BatchGetChequesResponse.FromString(answer)


async def test_a_batch_comes_in_the_order_of_the_request(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", version=n) for n in range(1, 5)))
    response = await get_batch(model, "c-3", "c-9", "c-1", "c-8", "c-4")
    assert list(response.cheques) == [cheque(f"c-{n}", version=n) for n in (3, 1, 4)]
    assert list(response.missing_cheque_ids) == ["c-9", "c-8"]


async def test_a_batch_is_one_round_trip(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    await model.put(cheque("c-1"), cheque("c-2"))
    trips = record_round_trips(model, monkeypatch)
    await get_batch(model, "c-1", "c-2")
    assert trips == [4]
    await get_batch(model, "c-1", "c-9")
    assert trips == [4, 4, 3], "what is missing may be archived"


async def test_views_are_only_missing_while_the_projection_is_ready(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await get_batch(model, "c-1", "c-2")
    assert error.value.reason == "VIEW_REBUILDING"


async def test_a_batch_waits_for_its_token(model: ReadModel) -> None:
    token = mint_token(INCARNATION, {"ledger.cheque.c-1": 2, "ledger.cheque.c-2": 3})
    await model.put(cheque("c-1", version=2))
    await model.put(cheque("c-2", version=2))
    for cheque_ids in (("c-1", "c-2"), ("c-1",)):
        with pytest.raises(RpcError) as error:
            await get_batch(model, *cheque_ids, token=token, remaining=0.1)
        assert error.value.reason == "VIEW_BEHIND"
    await model.put(cheque("c-2", version=3))
    response = await get_batch(model, "c-2", "c-1", "c-3", token=token)
    assert [(view.cheque_id, view.version) for view in response.cheques] == [("c-2", 3), ("c-1", 2)]
    assert list(response.missing_cheque_ids) == ["c-3"]


async def test_views_are_listed_newest_first_by_any_index(model: ReadModel) -> None:
    await model.put(
        cheque("a", account="a-1", written=1),
        cheque("b", account="a-2", written=2),
        cheque("c", account="a-1", written=3, state=ENDORSED),
        cheque("d", account="a-1", written=4),
    )
    assert await list_ids(model, account_id="a-1") == ["d", "c", "a"]
    assert await list_ids(model, state=WRITTEN) == ["d", "b", "a"]
    assert await list_ids(model, account_id="a-1", state=ENDORSED) == ["c"]
    assert await list_ids(model, account_id="a-3") == []


async def test_a_page_holds_twenty_views_by_default(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(25)))
    page = await get_page(model, account_id="a-1")
    assert len(page.cheques) == 20
    last_page = await get_page(model, account_id="a-1", page_token=page.next_page_token)
    assert [view.cheque_id for view in last_page.cheques] == ["c-4", "c-3", "c-2", "c-1", "c-0"]
    assert last_page.next_page_token == ""


async def test_a_page_that_ends_with_the_last_view_is_the_last(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(4)))
    page = await get_page(model, account_id="a-1", page_size=4)
    assert len(page.cheques) == 4
    assert page.next_page_token == ""


async def test_outdated_index_entries_are_skipped(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(6)))
    await model.put_without_derived(
        cheque("c-5", written=5, state=ENDORSED), cheque("c-3", written=3, state=ENDORSED)
    )
    await model.redis.delete(CHEQUE.key("c-2"))
    assert await list_ids(model, state=WRITTEN, page_size=2) == ["c-4", "c-1"]
    assert await list_ids(model, account_id="a-1") == ["c-5", "c-4", "c-3", "c-1", "c-0"]


async def test_a_page_is_filled_from_later_entries_up_to_a_limit(model: ReadModel) -> None:
    cheques = [cheque(f"c-{n:03}", written=n) for n in range(200)]
    await model.put(*cheques)
    changed = [cheque(view.cheque_id, written=n, state=ENDORSED) for n, view in enumerate(cheques) if n >= 10]
    await model.put_without_derived(*changed)
    page = await get_page(model, state=WRITTEN, page_size=10)
    assert not page.cheques  # the first 50 entries are stale
    assert page.next_page_token
    assert await list_all_ids(model, state=WRITTEN, page_size=10) == [
        f"c-{n:03}" for n in reversed(range(10))
    ]
    assert list_pages.MAX_READS == 5


async def test_a_page_token_of_other_filters_is_refused(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(3)))
    token = (await get_page(model, account_id="a-1", page_size=1)).next_page_token
    for other in ({"account_id": "a-2"}, {"state": WRITTEN}, {"account_id": "a-1", "state": WRITTEN}):
        with pytest.raises(RpcError) as error:
            await get_page(model, page_token=token, **other)
        assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert await list_ids(model, account_id="a-1", page_token=token, page_size=50) == ["c-1", "c-0"]


async def test_a_list_waits_for_its_token(model: ReadModel) -> None:
    await model.put(cheque("c-1"))
    token = mint_token(INCARNATION, {"ledger.cheque.c-2": 1})
    request = queries.ListChequesRequest(account_id="a-1", at_least_as_fresh=token)
    with pytest.raises(RpcError) as error:
        await respond(ledger.list_cheques, model.views, request, 0.1)
    assert error.value.reason == "VIEW_BEHIND"
    await model.put(cheque("c-2"))
    assert await list_ids(model, account_id="a-1", at_least_as_fresh=token) == ["c-2", "c-1"]


def at(micros: int, nanos: int = 0) -> Timestamp:
    return Timestamp(seconds=micros // 10**6, nanos=micros % 10**6 * 1000 + nanos)


async def test_views_are_listed_by_time(model: ReadModel) -> None:
    await model.put(
        cheque("a", written=1_000_000),
        cheque("b", written=2_000_000, account="a-2"),
        cheque("c", written=3_000_000, state=ENDORSED),
        cheque("d", written=3_000_001),
    )
    assert await list_ids(model, written_from=at(2_000_000)) == ["d", "c", "b"]
    assert await list_ids(model, written_from=at(2_000_000, 1)) == ["d", "c"]
    assert await list_ids(model, written_before=at(3_000_000)) == ["b", "a"]
    assert await list_ids(model, written_before=at(3_000_000, 1)) == ["c", "b", "a"]
    assert await list_ids(model, written_from=at(2_000_000), written_before=at(3_000_001)) == ["c", "b"]
    assert await list_ids(model, written_from=at(3_000_000), written_before=at(3_000_000)) == []
    assert await list_ids(model, written_from=at(4_000_000), written_before=at(1_000_000)) == []
    assert await list_ids(model, written_from=at(1_000_001), account_id="a-1") == ["d", "c"]
    assert await list_ids(model, written_before=at(3_000_001), state=WRITTEN) == ["b", "a"]
    both = {"account_id": "a-1", "state": WRITTEN}
    assert await list_ids(model, written_before=at(3_000_001), **both) == ["a"]


async def test_an_empty_bound_is_1970(model: ReadModel) -> None:
    await model.put(cheque("a", written=0), cheque("b", written=1))
    assert await list_ids(model, written_from=Timestamp()) == ["b", "a"]
    assert await list_ids(model, written_before=Timestamp()) == []


@pytest.mark.parametrize("seconds", [-(2**63), -10, 253_402_300_800, 2**63 - 1])
@pytest.mark.parametrize("nanos", [-(2**31), 0, 2**31 - 1])
async def test_bounds_outside_the_calendar_list_all_or_nothing(
    model: ReadModel, seconds: int, nanos: int
) -> None:
    await model.put(cheque("a", written=0), cheque("b", written=1_767_323_045_000_000))
    bound = Timestamp(seconds=seconds, nanos=nanos)
    assert await list_ids(model, written_from=bound) == ([] if seconds > 0 else ["b", "a"])
    assert await list_ids(model, written_before=bound) == (["b", "a"] if seconds > 0 else [])


async def test_pages_stay_within_the_bounds(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(9)))
    bounds = {"written_from": at(2), "written_before": at(7)}
    assert await list_all_ids(model, page_size=2, **bounds) == [f"c-{n}" for n in (6, 5, 4, 3, 2)]


async def test_a_page_token_of_other_bounds_is_refused(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(9)))
    filters = {"account_id": "a-1", "written_from": at(2), "written_before": at(7)}
    token = (await get_page(model, page_size=1, **filters)).next_page_token
    for change in (
        {"written_from": at(3)},
        {"written_before": at(8)},
        {"written_from": None},
        {"written_before": None},
        {"written_from": at(7), "written_before": at(2)},
        {"account_id": ""},
        {"state": WRITTEN},
    ):
        with pytest.raises(RpcError) as error:
            await get_page(model, page_token=token, **(filters | change))
        assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert await list_ids(model, page_token=token, **filters) == ["c-5", "c-4", "c-3", "c-2"]


TIMES = st.integers(0, 6)  # a small range, so that many cheques share a time


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    initial=st.lists(TIMES, max_size=12),
    arriving=st.lists(st.lists(TIMES, max_size=4), max_size=15),
    sizes=st.lists(st.integers(1, 4), min_size=1),
)
async def test_pages_list_every_initial_view_once_while_views_arrive(
    model: ReadModel, initial: list[int], arriving: list[list[int]], sizes: list[int]
) -> None:
    await model.redis.flushdb()
    await model.mark_ready()
    await model.put(*(cheque(f"c-{n}", written=written) for n, written in enumerate(initial)))
    listed: list[str] = []
    page_token, number = "", 0
    while number == 0 or page_token:
        size = sizes[number % len(sizes)]
        page = await get_page(model, account_id="a-1", page_size=size, page_token=page_token)
        listed += [view.cheque_id for view in page.cheques]
        page_token = page.next_page_token
        new = arriving[number] if number < len(arriving) else []
        await model.put(*(cheque(f"new-{number}-{n}", written=written) for n, written in enumerate(new)))
        number += 1
    assert len(listed) == len(set(listed))
    expected = sorted(((written, f"c-{n}") for n, written in enumerate(initial)), reverse=True)
    assert [cheque_id for cheque_id in listed if cheque_id.startswith("c-")] == [
        cheque_id for _, cheque_id in expected
    ]
