"""Queries of banking: accounts, holds and transfers by their ids, statements, and the daily report."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from diptych.banking.v1 import query_service_pb2 as protocol
from diptych.banking.v1.types_pb2 import Account, AccountLedger, DailyReport, Hold, Transaction, Transfer
from google.protobuf.timestamp_pb2 import Timestamp

from contracts import page_tokens
from contracts.view_layout import View
from query_server import freshness, history_pages
from query_server.counters import NANOS, counters, money, nanos
from query_server.service import Query, QueryContext, QueryHandler
from query_server.timestamps import instant
from query_server.view_reader import ViewReader
from query_server.wire_format import field
from runtime.grpc.request_tokens import read_page_token
from runtime.grpc.rpc_error import RpcError

LEDGERS = View.of(AccountLedger)
PAGE_SIZE = 20
"""Lines on a page where the request does not say."""


def one(name: str) -> QueryHandler:
    """Return what answers with one view, which the field of this name of the response holds."""

    async def answer(views: ViewReader, request: Any, remaining: float | None) -> bytes:
        id_ = getattr(request, f"{name}_id")
        data = await freshness.view(views, id_, request.at_least_as_fresh, remaining)
        if not data:
            raise _not_found(name, id_)
        return field(1, data)

    return answer


async def list_transactions(
    ledgers: ViewReader, request: protocol.ListTransactionsRequest, remaining: float | None
) -> bytes:
    """QueryHandler with a page of an account's statement."""
    account_id = request.account_id
    starts = request.booked_from if request.HasField("booked_from") else None
    ends = request.booked_before if request.HasField("booked_before") else None
    period = " ".join(str(instant(bound)) if bound else "-" for bound in (starts, ends))
    listed = f"{LEDGERS.history(account_id)} {period}"
    after = read_page_token(listed, request.page_token)
    ledger = await _ledger(ledgers, request, remaining)
    oldest = await _first_from(ledgers, ledger, starts) if starts else 1
    newest = await _first_from(ledgers, ledger, ends) - 1 if ends else ledger.version
    size = request.page_size or PAGE_SIZE
    lines, last = await history_pages.page(ledgers, account_id, newest, after, size, oldest)
    number = protocol.ListTransactionsResponse.TRANSACTIONS_FIELD_NUMBER
    rest = protocol.ListTransactionsResponse(next_page_token=page_tokens.mint(listed, last) if last else "")
    return b"".join(field(number, line) for line in lines) + rest.SerializeToString()


async def get_statement(
    ledgers: ViewReader, request: protocol.GetStatementRequest, remaining: float | None
) -> bytes:
    """QueryHandler with what a month has made of an account: the difference of two lines."""
    year, month = map(int, request.month.split("-"))
    ledger = await _ledger(ledgers, request, remaining)
    opening = await _before(ledgers, ledger, datetime(year, month, 1, tzinfo=UTC))
    closing = await _before(ledgers, ledger, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
    paid_in = nanos(closing.paid_in) - nanos(opening.paid_in)
    paid_out = paid_in - (nanos(closing.balance) - nanos(opening.balance))
    currency = ledger.last.balance.currency_code
    response = protocol.GetStatementResponse()
    statement = response.statement
    statement.account_id, statement.month = request.account_id, request.month
    statement.opening_balance.CopyFrom(money(currency, nanos(opening.balance)))
    statement.paid_in.CopyFrom(money(currency, paid_in))
    statement.paid_out.CopyFrom(money(currency, paid_out))
    statement.closing_balance.CopyFrom(money(currency, nanos(closing.balance)))
    return response.SerializeToString()


async def _ledger(ledgers: ViewReader, request: Any, remaining: float | None) -> AccountLedger:
    """Return the ledger that a request names."""
    id_ = request.account_id
    data = await freshness.view(ledgers, id_, request.at_least_as_fresh, remaining)
    if not data:
        raise _not_found("account", id_)
    return AccountLedger.FromString(data)


async def _first_from(ledgers: ViewReader, ledger: AccountLedger, time: Timestamp) -> int:
    """Return the first version that was booked at a time or later; the one after the last if none was."""
    earliest = instant(time)

    def is_from(line: bytes) -> bool:
        return Transaction.FromString(line).book_time.ToNanoseconds() >= earliest

    return await history_pages.first_from(ledgers, ledger.account_id, ledger.version, is_from)


async def _before(ledgers: ViewReader, ledger: AccountLedger, moment: datetime) -> Transaction:
    """Return the last line before a moment; an empty one if there is none."""
    time = Timestamp()
    time.FromDatetime(moment)
    version = await _first_from(ledgers, ledger, time) - 1
    if not version:
        return Transaction()
    (line,) = await ledgers.history_entries(ledger.account_id, [version])
    return Transaction.FromString(line)


async def get_daily_report(
    ledgers: ViewReader, request: protocol.GetDailyReportRequest, remaining: float | None
) -> bytes:
    """QueryHandler with the sums of a day."""
    read = ("HGETALL", LEDGERS.event_counters("day", request.day))
    if token := request.at_least_as_fresh:
        (flat,) = await freshness.read(ledgers, token, read, remaining=remaining)
    else:
        _, (flat,) = await ledgers.complete(read)
    report = _report(request.day, counters(flat))
    return protocol.GetDailyReportResponse(report=report).SerializeToString()


def _report(day: str, sums: dict[str, int]) -> DailyReport:
    """Return the report that counters like `count/KIND_SENT/EUR` and `units/KIND_SENT/EUR` make up."""
    counts: dict[tuple[Transaction.Kind.ValueType, str], int] = {}
    amounts: Counter[tuple[Transaction.Kind.ValueType, str]] = Counter()
    for name, value in sums.items():
        part, kind_name, currency = name.split("/", 2)
        key = _kind(kind_name), currency
        if part == "count":
            counts[key] = value
        else:
            amounts[key] += value * (NANOS if part == "units" else 1)
    report = DailyReport(day=day)
    for (kind, currency), count in sorted(counts.items()):
        report.sums.add(kind=kind, count=count, amount=money(currency, amounts[kind, currency]))
    return report


def _kind(name: str) -> Transaction.Kind.ValueType:
    try:
        return Transaction.Kind.Value(name)
    except ValueError:
        raise RpcError("VIEW_NEWER", f"{name} is unknown to this server", retry_after=1.0) from None


def _not_found(name: str, id_: str) -> RpcError:
    return RpcError.not_found("banking", f"{name.upper()}_NOT_FOUND", {f"{name}_id": id_})


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetAccount": Query(View.of(Account), one("account")),
        "GetHold": Query(View.of(Hold), one("hold")),
        "GetTransfer": Query(View.of(Transfer), one("transfer")),
        "ListTransactions": Query(LEDGERS, list_transactions),
        "GetStatement": Query(LEDGERS, get_statement),
        "GetDailyReport": Query(LEDGERS, get_daily_report),
    },
)
