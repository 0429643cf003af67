"""The ledger's queries."""

from typing import Any

from contracts import page_tokens
from contracts.view_layout import View, index_bound
from query_server import freshness, history_pages, list_pages, watches
from query_server.service import Query, QueryContext, WatchQuery
from query_server.timestamps import to_nanoseconds
from query_server.view_reader import ViewReader, Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_field
from runtime.grpc.request_tokens import read_page_token
from runtime.grpc.rpc_error import RpcError
from tests.support.ledger.stubs import queries as protocol
from tests.support.ledger.stubs import types as views

CHEQUE, HISTORY, ACCOUNT = (View.of(each) for each in (views.Cheque, views.ChequeHistory, views.Account))
DEFAULT_PAGE_SIZE = 20


async def get_cheque(cheques: ViewReader, request: Any, remaining: float | None) -> bytes:
    data = await freshness.read_view(cheques, request.cheque_id, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found("cheque", request.cheque_id)
    return encode_field(1, data)


async def batch_get_cheques(cheques: ViewReader, request: Any, remaining: float | None) -> bytes:
    ids = list(request.cheque_ids)
    if token := request.at_least_as_fresh:
        reads = [cheques.data_command(cheque_id) for cheque_id in ids]
        found = await freshness.read(cheques, token, *reads, remaining=remaining)
    else:
        found = await cheques.get_all(ids)
    missing_ids = [cheque_id for cheque_id, data in zip(ids, found, strict=True) if not data]
    rest: bytes = protocol.BatchGetChequesResponse(missing_cheque_ids=missing_ids).SerializeToString()
    return b"".join(encode_field(1, data) for data in found if data) + rest


async def list_cheques(cheques: ViewReader, request: Any, remaining: float | None) -> bytes:
    low = index_bound(to_nanoseconds(request.written_from)) if request.HasField("written_from") else ""
    high = index_bound(to_nanoseconds(request.written_before)) if request.HasField("written_before") else ""
    window = Window(_select_index(cheques.view, request.account_id, request.state), low, high)
    after = read_page_token(str(window), request.page_token)
    if request.at_least_as_fresh:
        await freshness.read(cheques, request.at_least_as_fresh, remaining=remaining)
    page, last = await list_pages.read_page(cheques, window, after, request.page_size or DEFAULT_PAGE_SIZE)
    token = page_tokens.mint(str(window), last) if last else ""
    rest: bytes = protocol.ListChequesResponse(next_page_token=token).SerializeToString()
    return b"".join(encode_field(1, data) for data in page) + rest


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


async def get_cheque_history(histories: ViewReader, request: Any, remaining: float | None) -> bytes:
    cheque_id = request.cheque_id
    list_name = histories.view.history(cheque_id)
    after = read_page_token(list_name, request.page_token)
    version_read = histories.version_command(cheque_id)
    if token := request.at_least_as_fresh:
        (version,) = await freshness.read(histories, token, version_read, remaining=remaining)
    else:
        _, (version,) = await histories.read_while_ready(version_read)
    if not int(version or 0):
        raise _not_found("cheque", cheque_id)
    size = request.page_size or DEFAULT_PAGE_SIZE
    entries, last = await history_pages.read_page(histories, cheque_id, int(version), after, size)
    token = page_tokens.mint(list_name, last) if last else ""
    rest: bytes = protocol.GetChequeHistoryResponse(next_page_token=token).SerializeToString()
    return b"".join(encode_field(1, entry) for entry in entries) + rest


async def get_account(accounts: ViewReader, request: Any, remaining: float | None) -> bytes:
    data = await freshness.read_view(accounts, request.account_id, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found("account", request.account_id)
    return encode_field(1, data)


def watch_cheque(watch: Watch, request: Any) -> WatchResponses:
    return watches.watch_view(watch, request.cheque_id, _not_found("cheque", request.cheque_id))


def watch_account_cheques(watch: Watch, request: Any) -> WatchResponses:
    feed, index = (make("account", request.account_id) for make in (CHEQUE.change_feed, CHEQUE.index))
    return watches.watch_feed(watch, feed, index)


def _not_found(kind: str, id_: str) -> RpcError:
    return RpcError.not_found("ledger", f"{kind.upper()}_NOT_FOUND", {f"{kind}_id": id_})


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
