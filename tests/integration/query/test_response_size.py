"""Responses end before they become too large for a client, whatever number of items a request names."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from diptych.inventory.v1 import query_service_pb2 as inventory
from diptych.inventory.v1.types_pb2 import StockLedger, StockMovement
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.view_layout import View, index_member
from query_server.contexts.inventory import get_stock_movements
from query_server.service import query_service
from query_server.view_reader import ViewReader
from runtime.grpc.response_size import FIRST_READ, MAX_RESPONSE_BYTES
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.freshness import NO_LIMIT, NO_NOTIFICATIONS, make_serving
from tests.support.harness.read_model import ReadModel, record_round_trips, respond
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import CHEQUE, HISTORY, cheque
from tests.support.ledger.stubs import queries, types

some = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
LIMIT = 1_000
SIZES = st.lists(st.integers(0, 1_500), min_size=1, max_size=12)
"""Lengths of texts, some of which make their item larger than a page."""


def sized_cheque(number: int, length: int) -> Any:
    view = cheque(f"c-{number:03}", written=number)
    view.void_reason = "x" * length
    return view


def limited(model: ReadModel, view: View = CHEQUE, limit: int = LIMIT) -> ViewReader:
    return ViewReader(model.reader, view, max_page_bytes=limit)


async def read_pages(get_page: Callable[[str], Any], field: str) -> list[list[Any]]:
    """Return the items of each page."""
    pages: list[list[Any]] = []
    token = ""
    while not pages or token:
        page = await get_page(token)
        pages.append(list(getattr(page, field)))
        token = page.next_page_token
    return pages


def check_pages(pages: list[list[Any]], size: int) -> None:
    """Check that each page is within the limits, and that its next item would not have been."""
    for page, next_page in pairwise(pages):
        sizes = [item.ByteSize() for item in page]
        assert sizes
        assert len(page) == size or sum(sizes) + next_page[0].ByteSize() > LIMIT
    for page in pages:
        assert len(page) <= 1 or sum(item.ByteSize() for item in page) <= LIMIT


@some
@given(lengths=SIZES, size=st.integers(1, 6))
async def test_a_list_arrives_in_pages_of_limited_size(
    model: ReadModel, lengths: list[int], size: int
) -> None:
    await model.redis.flushall()
    await model.mark_ready()
    await model.put(*(sized_cheque(number, length) for number, length in enumerate(lengths)))

    async def get_page(token: str) -> Any:
        request = queries.ListChequesRequest(account_id="a-1", page_size=size, page_token=token)
        answer = await respond(ledger.list_cheques, limited(model), request)
        return queries.ListChequesResponse.FromString(answer)

    pages = await read_pages(get_page, "cheques")
    ids = [view.cheque_id for page in pages for view in page]
    assert ids == [f"c-{number:03}" for number in reversed(range(len(lengths)))]
    check_pages(pages, size)


@some
@given(lengths=SIZES, size=st.integers(1, 6))
async def test_a_history_arrives_in_pages_of_limited_size(
    model: ReadModel, lengths: list[int], size: int
) -> None:
    entries = [
        types.ChequeHistoryEntry(version=version, actor="x" * length)
        for version, length in enumerate(lengths, 1)
    ]
    await model.put_history("c-1", *entries)

    async def get_page(token: str) -> Any:
        request = queries.GetChequeHistoryRequest(cheque_id="c-1", page_size=size, page_token=token)
        answer = await respond(ledger.get_cheque_history, limited(model, HISTORY), request)
        return queries.GetChequeHistoryResponse.FromString(answer)

    pages = await read_pages(get_page, "entries")
    versions = [entry.version for page in pages for entry in page]
    assert versions == list(reversed(range(1, len(lengths) + 1)))
    check_pages(pages, size)


@some
@given(
    lengths=st.lists(SIZES, min_size=1, max_size=3),
    size=st.integers(1, 6),
    firsts=st.tuples(*[st.integers(1, 3)] * 3),
)
async def test_merged_histories_arrive_in_pages_of_limited_size(
    model: ReadModel, lengths: list[list[int]], size: int, firsts: tuple[int, ...]
) -> None:
    ledgers = View.of(StockLedger)
    await model.redis.flushall()
    await model.redis.set(ledgers.ready, "i")
    for number, history in enumerate(lengths):
        stock_id = f"s-{number}"
        view = StockLedger(sku="lamp", version=len(history), warehouse_id=f"w-{number}", stock_id=stock_id)
        index = ledgers.index("sku", "lamp")
        member = index_member(0, stock_id)
        entries = msgspec.json.encode([(index, member)])
        fields: Any = {"data": view.SerializeToString(), "version": view.version, "entries": entries}
        if firsts[number] > 1:  # the entries before are archived
            fields["history_from"] = firsts[number]
        await model.redis.hset(ledgers.key(stock_id), mapping=fields)
        await model.redis.zadd(index, {member: 0})
        for version, length in enumerate(history, 1):
            kind = StockMovement.KIND_ADJUSTED if length % 3 else StockMovement.KIND_UNSPECIFIED
            movement = StockMovement(version=version, kind=kind, warehouse_id=f"w-{number}")
            movement.reference = "x" * length
            movement.record_time.FromMicroseconds(version)
            if version < firsts[number]:
                continue
            await model.redis.hset(ledgers.history(stock_id), str(version), movement.SerializeToString())

    async def get_page(token: str) -> Any:
        request = inventory.GetStockMovementsRequest(sku="lamp", page_size=size, page_token=token)
        answer = await respond(get_stock_movements, limited(model, ledgers), request)
        response = inventory.GetStockMovementsResponse.FromString(answer)
        assert response.older_archived == any(first > 1 for first in firsts[: len(lengths)])
        return response

    pages = await read_pages(get_page, "movements")
    listed = {(movement.warehouse_id, movement.version) for page in pages for movement in page}
    expected = {
        (f"w-{number}", version)
        for number, history in enumerate(lengths)
        for version, length in enumerate(history, 1)
        if length % 3 and version >= firsts[number]
    }
    assert listed == expected
    assert sum(map(len, pages)) == len(expected)
    check_pages([page for page in pages if page], size)


async def get_batch(model: ReadModel, cheque_ids: list[str]) -> Any:
    request = queries.BatchGetChequesRequest(cheque_ids=cheque_ids)
    answer = await respond(ledger.batch_get_cheques, limited(model), request)
    return queries.BatchGetChequesResponse.FromString(answer)


@some
@given(lengths=SIZES, seed=st.randoms())
async def test_a_batch_names_the_ids_to_ask_for_again(
    model: ReadModel, lengths: list[int], seed: Any
) -> None:
    await model.redis.flushall()
    await model.mark_ready()
    views = [sized_cheque(number, length) for number, length in enumerate(lengths)]
    await model.put(*views)
    ids = [view.cheque_id for view in views] + [f"missing-{number}" for number in range(3)]
    seed.shuffle(ids)
    received, missing, unread = [], [], ids
    while unread:
        asked = unread
        response = await get_batch(model, asked)
        sizes = [view.ByteSize() for view in response.cheques]
        assert len(sizes) <= 1 or sum(sizes) <= LIMIT
        received += [view.cheque_id for view in response.cheques]
        missing += list(response.missing_cheque_ids)
        unread = list(response.unread_cheque_ids)
        assert len(unread) < len(asked)
        assert unread == asked[len(asked) - len(unread) :]
    assert received == [cheque_id for cheque_id in ids if cheque_id.startswith("c-")]
    assert missing == [cheque_id for cheque_id in ids if cheque_id.startswith("missing-")]


async def test_few_views_are_read_in_vain(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    await model.put(*(sized_cheque(number, 400) for number in range(FIRST_READ * 3)))
    markers = 2
    trips = record_round_trips(model, monkeypatch)
    request = queries.ListChequesRequest(account_id="a-1", page_size=100)
    await respond(ledger.list_cheques, limited(model), request)
    assert trips == [1 + markers, FIRST_READ + markers]
    trips.clear()
    await respond(ledger.list_cheques, limited(model, limit=10**6), request)
    assert trips == [1 + markers, FIRST_READ + markers, 100 - FIRST_READ + markers]
    trips.clear()
    ids = [f"c-{number:03}" for number in range(100)]
    await respond(ledger.batch_get_cheques, limited(model), queries.BatchGetChequesRequest(cheque_ids=ids))
    assert trips == [FIRST_READ + markers]


class Call:
    """The context of a call without a deadline."""

    def time_remaining(self) -> None:
        return None

    def set_trailing_metadata(self, _: object) -> None:
        pass


async def test_a_view_that_no_client_would_accept_is_an_error(model: ReadModel) -> None:
    await model.put(sized_cheque(1, MAX_RESPONSE_BYTES), sized_cheque(2, MAX_RESPONSE_BYTES - 1_000))
    served = make_serving(CHEQUE, model.reader)
    models: Any = {query.view: served for query in ledger.CONTEXT.queries.values()}
    handlers = query_service(ledger.CONTEXT, models, NO_NOTIFICATIONS, NO_LIMIT).handlers
    context: Any = Call()
    assert await handlers["GetCheque"](queries.GetChequeRequest(cheque_id="c-002"), context)
    for method, request in (
        ("GetCheque", queries.GetChequeRequest(cheque_id="c-001")),
        ("BatchGetCheques", queries.BatchGetChequesRequest(cheque_ids=["c-001"])),
        (
            "ListCheques",
            queries.ListChequesRequest(account_id="a-1", written_before={"seconds": 0, "nanos": 2_000}),
        ),
    ):
        with pytest.raises(RpcError) as error:
            await handlers[method](request, context)
        assert error.value.reason == "RESPONSE_TOO_LARGE"
        assert int(error.value.metadata["bytes"]) > int(error.value.metadata["most"]) == MAX_RESPONSE_BYTES
