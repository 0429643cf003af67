"""Pages of several lists merged into one, on a read model that changes."""

import random

import pytest

from query_server import merged_list_pages
from query_server.fresh_reader import FreshReader
from query_server.view_reader import Window
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.read_model import ReadModel, respond
from tests.support.ledger.stored_views import CHEQUE, cheque
from tests.support.ledger.stubs import queries

ACCOUNTS = [f"a-{n}" for n in range(6)]


async def read_page(model: ReadModel, token: str = "", size: int = 7) -> tuple[list[str], str]:
    """Return the ids of a page of the cheques of all ACCOUNTS, and the token of the next page."""

    async def find_windows() -> list[Window]:
        return [Window(CHEQUE.index("account", account)) for account in ACCOUNTS]

    async def handle(reader: FreshReader, request: queries.ListChequesRequest) -> bytes:
        return (await merged_list_pages.read_page(reader, find_windows, "all accounts", request)).encode()

    request = queries.ListChequesRequest(page_size=size, page_token=token)
    page = queries.ListChequesResponse.FromString(await respond(handle, model.views, request))
    return [view.cheque_id for view in page.cheques], page.next_page_token


@pytest.mark.parametrize("size", [7, 40])
async def test_lists_are_merged_newest_first_in_pages_of_their_size(model: ReadModel, size: int) -> None:
    # One account has most of the cheques, so that its chunk ends before those of the others.
    accounts = [ACCOUNTS[0] if n % 9 else ACCOUNTS[n % 5 + 1] for n in range(100)]
    await model.put(*(cheque(f"c-{n:02}", account=accounts[n], written=n) for n in range(100)))
    ids, token, sizes = list[str](), "", list[int]()
    while True:
        page, token = await read_page(model, token, size)
        ids += page
        sizes.append(len(page))
        if not token:
            break
    assert ids == [f"c-{n:02}" for n in reversed(range(100))]
    assert set(sizes[:-1]) == {size}


async def test_pages_neither_skip_nor_repeat_while_views_move_between_the_lists(model: ReadModel) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    numbers = random.Random(seed)
    home = {f"c-{n:02}": numbers.choice(ACCOUNTS) for n in range(60)}

    async def move(*cheque_ids: str) -> None:
        for cheque_id in cheque_ids:
            former = cheque(cheque_id, account=home[cheque_id], written=int(cheque_id[2:]))
            entries = model.projections.index_entries(former)
            home[cheque_id] = numbers.choice(ACCOUNTS)
            await model.put(cheque(cheque_id, account=home[cheque_id], written=int(cheque_id[2:])))
            for index, member in set(entries) - set(
                model.projections.index_entries(
                    cheque(cheque_id, account=home[cheque_id], written=int(cheque_id[2:]))
                )
            ):
                await model.redis.zrem(index, member)

    await move(*home)
    ids, token = await read_page(model)
    while token:
        await move(*numbers.sample(list(home), 10))
        page, token = await read_page(model, token, numbers.randint(1, 20))
        ids += page
    assert ids == sorted(home, reverse=True)


async def test_a_view_whose_former_entry_is_still_there_is_listed_where_it_is(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", account="a-1", written=n) for n in range(3)))
    await model.put(cheque("c-1", account="a-2", written=1))  # the entry under a-1 stays
    await model.put(cheque("c-2", account="elsewhere", written=2))
    assert await read_page(model) == (["c-1", "c-0"], "")


async def test_a_view_that_is_found_in_two_lists_is_listed_once(model: ReadModel) -> None:
    """So is one that moves between two lists while both are read."""
    await model.put(*(cheque(f"c-{n}", account="a-1", written=n) for n in range(5)))

    async def find_windows() -> list[Window]:
        return [Window(CHEQUE.index(*index)) for index in (("account", "a-1"), ("all",))]

    async def handle(reader: FreshReader, request: queries.ListChequesRequest) -> bytes:
        return (await merged_list_pages.read_page(reader, find_windows, "both", request)).encode()

    data = await respond(handle, model.views, queries.ListChequesRequest(page_size=3))
    page = queries.ListChequesResponse.FromString(data)
    assert [view.cheque_id for view in page.cheques] == ["c-4", "c-3", "c-2"]


async def test_a_token_of_another_list_is_refused(model: ReadModel) -> None:
    await model.put(*(cheque(f"c-{n}", written=n) for n in range(3)))
    _, token = await read_page(model, size=1)
    request = queries.ListChequesRequest(page_token=token)

    async def find_windows() -> list[Window]:
        return [Window(CHEQUE.index("account", "a-1"))]

    async def handle(reader: FreshReader, request: queries.ListChequesRequest) -> bytes:
        return (await merged_list_pages.read_page(reader, find_windows, "one account", request)).encode()

    with pytest.raises(RpcError) as error:
        await respond(handle, model.views, request)
    assert error.value.reason == "PAGE_TOKEN_INVALID"
