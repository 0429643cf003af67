"""Queries of banking: accounts, holds and transfers by id, statements, and the daily report."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from diptych.banking.v1 import query_service_pb2 as protocol
from diptych.banking.v1.types_pb2 import Account, AccountLedger, DailyReport, Hold, Transaction, Transfer
from google.protobuf.timestamp_pb2 import Timestamp

from contracts import page_tokens
from contracts.money import counter_to_nanos, from_nanos, to_nanos
from contracts.view_layout import View
from query_server import freshness, history_pages
from query_server.counters import parse_counters
from query_server.service import Query, QueryContext, QueryHandler
from query_server.timestamps import to_nanoseconds
from query_server.view_reader import ViewReader
from query_server.wire_format import encode_field
from runtime.grpc.request_tokens import read_page_token
from runtime.grpc.rpc_error import RpcError

LEDGERS = View.of(AccountLedger)
DEFAULT_PAGE_SIZE = 20
"""Lines per page."""


def make_get_handler(name: str) -> QueryHandler:
    """Return the handler that reads the view named by `<name>_id` and responds with it in field 1."""

    async def get(views: ViewReader, request: Any, remaining: float | None) -> bytes:
        view_id = getattr(request, f"{name}_id")
        data = await freshness.read_view(views, view_id, request.at_least_as_fresh, remaining)
        if not data:
            raise _not_found(name, view_id)
        return encode_field(1, data)

    return get


async def list_transactions(
    ledgers: ViewReader, request: protocol.ListTransactionsRequest, remaining: float | None
) -> bytes:
    account_id = request.account_id
    start = request.booked_from if request.HasField("booked_from") else None
    end = request.booked_before if request.HasField("booked_before") else None
    period = " ".join(str(to_nanoseconds(bound)) if bound else "-" for bound in (start, end))
    list_name = f"{LEDGERS.history(account_id)} {period}"
    after = read_page_token(list_name, request.page_token)
    ledger = await _read_ledger(ledgers, request, remaining)
    oldest = await _find_first_version(ledgers, ledger, start) if start else 1
    newest = await _find_first_version(ledgers, ledger, end) - 1 if end else ledger.version
    size = request.page_size or DEFAULT_PAGE_SIZE
    lines, last = await history_pages.read_page(ledgers, account_id, newest, after, size, oldest)
    number = protocol.ListTransactionsResponse.TRANSACTIONS_FIELD_NUMBER
    next_page_token = page_tokens.mint(list_name, last) if last else ""
    response = protocol.ListTransactionsResponse(next_page_token=next_page_token)
    return b"".join(encode_field(number, line) for line in lines) + response.SerializeToString()


async def get_statement(
    ledgers: ViewReader, request: protocol.GetStatementRequest, remaining: float | None
) -> bytes:
    """Compute a month from two ledger lines: the last before it, and its own last."""
    year, month = map(int, request.month.split("-"))
    ledger = await _read_ledger(ledgers, request, remaining)
    opening = await _read_last_line_before(ledgers, ledger, datetime(year, month, 1, tzinfo=UTC))
    next_month = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    closing = await _read_last_line_before(ledgers, ledger, next_month)
    opening_balance, closing_balance = to_nanos(opening.balance), to_nanos(closing.balance)
    # Lines accumulate `paid_in` alone; `paid_out` follows from it and the change of the balance.
    paid_in = to_nanos(closing.paid_in) - to_nanos(opening.paid_in)
    paid_out = paid_in - (closing_balance - opening_balance)
    currency = ledger.last.balance.currency_code
    response = protocol.GetStatementResponse()
    statement = response.statement
    statement.account_id, statement.month = request.account_id, request.month
    statement.opening_balance.CopyFrom(from_nanos(currency, opening_balance))
    statement.paid_in.CopyFrom(from_nanos(currency, paid_in))
    statement.paid_out.CopyFrom(from_nanos(currency, paid_out))
    statement.closing_balance.CopyFrom(from_nanos(currency, closing_balance))
    return response.SerializeToString()


async def _read_ledger(ledgers: ViewReader, request: Any, remaining: float | None) -> AccountLedger:
    account_id = request.account_id
    data = await freshness.read_view(ledgers, account_id, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found("account", account_id)
    return AccountLedger.FromString(data)


async def _find_first_version(ledgers: ViewReader, ledger: AccountLedger, time: Timestamp) -> int:
    """Return the first version booked at `time` or later; the ledger's version + 1 if there is none."""
    start = to_nanoseconds(time)

    def is_in_period(line: bytes) -> bool:
        return Transaction.FromString(line).book_time.ToNanoseconds() >= start

    return await history_pages.find_first_version(ledgers, ledger.account_id, ledger.version, is_in_period)


async def _read_last_line_before(ledgers: ViewReader, ledger: AccountLedger, moment: datetime) -> Transaction:
    """Return the last line booked before a moment; an empty one if there is none."""
    time = Timestamp()
    time.FromDatetime(moment)
    version = await _find_first_version(ledgers, ledger, time) - 1
    if not version:
        return Transaction()
    (line,) = await ledgers.get_history_entries(ledger.account_id, [version])
    return Transaction.FromString(line)


async def get_daily_report(
    ledgers: ViewReader, request: protocol.GetDailyReportRequest, remaining: float | None
) -> bytes:
    counters_read = ("HGETALL", LEDGERS.event_counters("day", request.day))
    if token := request.at_least_as_fresh:
        (reply,) = await freshness.read(ledgers, token, counters_read, remaining=remaining)
    else:
        _, (reply,) = await ledgers.read_while_ready(counters_read)
    report = _build_report(request.day, parse_counters(reply))
    return protocol.GetDailyReportResponse(report=report).SerializeToString()


def _build_report(day: str, counters: dict[str, int]) -> DailyReport:
    """Return the report of counters like `count/KIND_SENT/EUR` and `units/KIND_SENT/EUR`."""
    counts: dict[tuple[Transaction.Kind.ValueType, str], int] = {}
    nanos: Counter[tuple[Transaction.Kind.ValueType, str]] = Counter()
    for name, value in counters.items():
        part, kind_name, currency = name.split("/", 2)
        key = _parse_kind(kind_name), currency
        if part == "count":
            counts[key] = value
        else:
            nanos[key] += counter_to_nanos(part, value)
    report = DailyReport(day=day)
    for (kind, currency), count in sorted(counts.items()):
        report.sums.add(kind=kind, count=count, amount=from_nanos(currency, nanos[kind, currency]))
    return report


def _parse_kind(name: str) -> Transaction.Kind.ValueType:
    try:
        return Transaction.Kind.Value(name)
    except ValueError:
        raise RpcError("VIEW_NEWER", f"{name} is unknown to this server", retry_after=1.0) from None


def _not_found(name: str, view_id: str) -> RpcError:
    return RpcError.not_found("banking", f"{name.upper()}_NOT_FOUND", {f"{name}_id": view_id})


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetAccount": Query(View.of(Account), make_get_handler("account")),
        "GetHold": Query(View.of(Hold), make_get_handler("hold")),
        "GetTransfer": Query(View.of(Transfer), make_get_handler("transfer")),
        "ListTransactions": Query(LEDGERS, list_transactions),
        "GetStatement": Query(LEDGERS, get_statement),
        "GetDailyReport": Query(LEDGERS, get_daily_report),
    },
)
