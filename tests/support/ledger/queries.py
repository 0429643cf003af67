"""The ledger's queries."""

from typing import Any

from contracts.view_layout import View
from query_server import batches, history_pages, list_pages, watches
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import read_period
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view
from tests.support.ledger.stubs import queries as protocol
from tests.support.ledger.stubs import types as views

CHEQUE, HISTORY, ACCOUNT = (View.of(each) for each in (views.Cheque, views.ChequeHistory, views.Account))
CHEQUE_NOT_FOUND = NotFound("ledger", "CHEQUE_NOT_FOUND", ("cheque_id",))
ACCOUNT_NOT_FOUND = NotFound("ledger", "ACCOUNT_NOT_FOUND", ("account_id",))


async def get_cheque(cheques: FreshReader, request: Any) -> bytes:
    return encode_view(await cheques.get(request.cheque_id, CHEQUE_NOT_FOUND))


async def batch_get_cheques(cheques: FreshReader, request: Any) -> bytes:
    return (await batches.read_batch(cheques, request.cheque_ids)).encode()


async def list_cheques(cheques: FreshReader, request: Any) -> bytes:
    index = _select_index(cheques.view, request.account_id, request.state)
    window = Window.of_period(index, read_period(request, "written_from", "written_before"))
    return (await list_pages.read_page(cheques, window, request)).encode()


def _select_index(view: View, account_id: str, state: int) -> str:
    name = views.Cheque.State.Name(state)
    match account_id, state:
        case "", 0:
            return view.index("all")
        case _, 0:
            return view.index("account", account_id)
        case "", _:
            return view.index("state", name)
        case _:
            return view.index("account_state", account_id, name)


async def get_cheque_history(histories: FreshReader, request: Any) -> bytes:
    page = await history_pages.read_page(
        histories, request.cheque_id, CHEQUE_NOT_FOUND, request, views.ChequeHistoryEntry
    )
    return page.encode()


async def get_account(accounts: FreshReader, request: Any) -> bytes:
    return encode_view(await accounts.get(request.account_id, ACCOUNT_NOT_FOUND))


def watch_cheque(watch: Watch, request: Any) -> WatchResponses:
    return watches.watch_view(watch, request.cheque_id, CHEQUE_NOT_FOUND)


def watch_account_cheques(watch: Watch, request: Any) -> WatchResponses:
    view, account_id = watch.view, request.account_id
    return watches.watch_feed(
        watch, view.change_feed("account", account_id), view.index("account", account_id)
    )


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetCheque": Query(CHEQUE, get_cheque),
        "BatchGetCheques": Query(CHEQUE, batch_get_cheques),
        "ListCheques": Query(CHEQUE, list_cheques),
        "GetChequeHistory": Query(HISTORY, get_cheque_history),
        "GetAccount": Query(ACCOUNT, get_account),
    },
    {
        "WatchCheque": WatchQuery(CHEQUE, watch_cheque),
        "WatchAccountCheques": WatchQuery(CHEQUE, watch_account_cheques),
    },
)
