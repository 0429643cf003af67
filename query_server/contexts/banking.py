"""Queries of banking: accounts, holds, transfers and withdrawals by id, statements, and the daily report."""

from collections import Counter
from datetime import UTC, datetime

from diptych.banking.v1 import query_service_pb2 as protocol
from diptych.banking.v1.types_pb2 import (
    Account,
    AccountLedger,
    Case,
    CaseKind,
    DailyReport,
    Hold,
    Mandate,
    Overdraft,
    Statement,
    Transaction,
    Transfer,
    Withdrawal,
)

from contracts.money import counter_to_nanos, from_nanos, to_nanos
from contracts.view_layout import View
from query_server import history_pages, list_pages
from query_server.counters import parse_enum
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext
from query_server.timestamps import NANOS_PER_SECOND, read_period
from query_server.view_reader import Window
from query_server.wire_format import encode_view

ACCOUNTS, HOLDS, TRANSFERS = View.of(Account), View.of(Hold), View.of(Transfer)
LEDGERS, WITHDRAWALS = View.of(AccountLedger), View.of(Withdrawal)
MANDATES, CASES, OVERDRAFTS = View.of(Mandate), View.of(Case), View.of(Overdraft)
ACCOUNT_NOT_FOUND = NotFound("banking", "ACCOUNT_NOT_FOUND", ("account_id",))
CASE_NOT_FOUND = NotFound("banking", "CASE_NOT_FOUND", ("case_id",))
HOLD_NOT_FOUND = NotFound("banking", "HOLD_NOT_FOUND", ("hold_id",))
TRANSFER_NOT_FOUND = NotFound("banking", "TRANSFER_NOT_FOUND", ("transfer_id",))
MANDATE_NOT_FOUND = NotFound("banking", "MANDATE_NOT_FOUND", ("mandate_id",))
OVERDRAFT_NOT_FOUND = NotFound("banking", "OVERDRAFT_NOT_FOUND", ("overdraft_id",))
WITHDRAWAL_NOT_FOUND = NotFound("banking", "WITHDRAWAL_NOT_FOUND", ("withdrawal_id",))


async def get_account(accounts: FreshReader, request: protocol.GetAccountRequest) -> bytes:
    return encode_view(await accounts.get(request.account_id, ACCOUNT_NOT_FOUND))


async def get_hold(holds: FreshReader, request: protocol.GetHoldRequest) -> bytes:
    return encode_view(await holds.get(request.hold_id, HOLD_NOT_FOUND))


async def get_transfer(transfers: FreshReader, request: protocol.GetTransferRequest) -> bytes:
    return encode_view(await transfers.get(request.transfer_id, TRANSFER_NOT_FOUND))


async def get_withdrawal(withdrawals: FreshReader, request: protocol.GetWithdrawalRequest) -> bytes:
    return encode_view(await withdrawals.get(request.withdrawal_id, WITHDRAWAL_NOT_FOUND))


async def get_mandate(mandates: FreshReader, request: protocol.GetMandateRequest) -> bytes:
    return encode_view(await mandates.get(request.mandate_id, MANDATE_NOT_FOUND))


async def list_mandates(mandates: FreshReader, request: protocol.ListMandatesRequest) -> bytes:
    filters = {"owner": request.owner_id, "account": request.account_id}
    chosen = {name: value for name, value in filters.items() if value}
    window = Window(mandates.view.index("_".join(chosen) or "all", *chosen.values()))
    return (await list_pages.read_page(mandates, window, request)).encode()


async def get_overdraft(overdrafts: FreshReader, request: protocol.GetOverdraftRequest) -> bytes:
    return encode_view(await overdrafts.get(request.overdraft_id, OVERDRAFT_NOT_FOUND))


async def get_case(cases: FreshReader, request: protocol.GetCaseRequest) -> bytes:
    return encode_view(await cases.get(request.case_id, CASE_NOT_FOUND))


async def list_cases(cases: FreshReader, request: protocol.ListCasesRequest) -> bytes:
    filters: dict[str, str] = {}
    if request.account_id:
        filters["account"] = request.account_id
    if request.state:
        filters["state"] = Case.State.Name(request.state)
    if request.kind:
        filters["kind"] = CaseKind.Name(request.kind)
    index = cases.view.index("_".join(filters) or "all", *filters.values())
    window = Window.of_period(index, read_period(request, "opened_from", "opened_before"))
    return (await list_pages.read_page(cases, window, request)).encode()


async def list_transactions(ledgers: FreshReader, request: protocol.ListTransactionsRequest) -> bytes:
    period = read_period(request, "booked_from", "booked_before")
    page = await history_pages.read_page_of_period(
        ledgers, request.account_id, ACCOUNT_NOT_FOUND, request, period, _read_book_time, Transaction
    )
    return page.encode()


def _read_book_time(line: bytes) -> int:
    return Transaction.FromString(line).book_time.ToNanoseconds()


async def get_statement(ledgers: FreshReader, request: protocol.GetStatementRequest) -> bytes:
    """Compute a month from two ledger lines: the last before it, and its own last."""
    ledger = AccountLedger.FromString(await ledgers.get(request.account_id, ACCOUNT_NOT_FOUND))
    year, month = map(int, request.month.split("-"))
    lines = await ledgers.get_history(request.account_id, ACCOUNT_NOT_FOUND)
    opening = await _read_last_line_before(ledgers, request, lines, datetime(year, month, 1, tzinfo=UTC))
    next_month = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    closing = await _read_last_line_before(ledgers, request, lines, next_month)
    statement = _build_statement(ledger.last.balance.currency_code, opening, closing)
    statement.account_id, statement.month = request.account_id, request.month
    return protocol.GetStatementResponse(statement=statement).SerializeToString()


async def _read_last_line_before(
    ledgers: FreshReader, request: protocol.GetStatementRequest, lines: range, time: datetime
) -> Transaction:
    """Return the last line booked before a time at a whole second; an empty one if there is none.

    Raises:
        RpcError: `HISTORY_ARCHIVED`, the line is archived.
    """
    nanos = int(time.timestamp()) * NANOS_PER_SECOND
    line = await history_pages.read_last_entry_before(
        ledgers.views, request.account_id, lines, nanos, _read_book_time
    )
    if line is None:
        raise ACCOUNT_NOT_FOUND.archived_history_error(lines.start, request.account_id)
    return Transaction.FromString(line)


def _build_statement(currency: str, opening: Transaction, closing: Transaction) -> Statement:
    opening_balance, closing_balance = to_nanos(opening.balance), to_nanos(closing.balance)
    # Lines accumulate `paid_in` alone; `paid_out` follows from it and the change of the balance.
    paid_in = to_nanos(closing.paid_in) - to_nanos(opening.paid_in)
    paid_out = paid_in - (closing_balance - opening_balance)
    return Statement(
        opening_balance=from_nanos(currency, opening_balance),
        paid_in=from_nanos(currency, paid_in),
        paid_out=from_nanos(currency, paid_out),
        closing_balance=from_nanos(currency, closing_balance),
    )


async def get_daily_report(ledgers: FreshReader, request: protocol.GetDailyReportRequest) -> bytes:
    counters = await ledgers.get_counters(ledgers.view.event_counters("day", request.day))
    report = _build_report(request.day, request.currency_code, counters)
    return protocol.GetDailyReportResponse(report=report).SerializeToString()


def _build_report(day: str, only_currency: str, counters: dict[str, int]) -> DailyReport:
    """Return the report of counters like `count/KIND_SENT/EUR` and `units/KIND_SENT/EUR`."""
    counts: dict[tuple[Transaction.Kind.ValueType, str], int] = {}
    nanos: Counter[tuple[Transaction.Kind.ValueType, str]] = Counter()
    for name, value in counters.items():
        part, kind_name, currency = name.split("/", 2)
        if only_currency not in ("", currency):
            continue
        key = parse_enum(Transaction.Kind, kind_name), currency
        if part == "count":
            counts[key] = value
        else:
            nanos[key] += counter_to_nanos(part, value)
    report = DailyReport(day=day)
    for (kind, currency), count in sorted(counts.items()):
        report.sums.add(kind=kind, count=count, amount=from_nanos(currency, nanos[kind, currency]))
    return report


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetAccount": Query(ACCOUNTS, get_account),
        "GetHold": Query(HOLDS, get_hold),
        "GetTransfer": Query(TRANSFERS, get_transfer),
        "GetWithdrawal": Query(WITHDRAWALS, get_withdrawal),
        "GetMandate": Query(MANDATES, get_mandate),
        "ListMandates": Query(MANDATES, list_mandates),
        "GetOverdraft": Query(OVERDRAFTS, get_overdraft),
        "GetCase": Query(CASES, get_case),
        "ListCases": Query(CASES, list_cases),
        "ListTransactions": Query(LEDGERS, list_transactions),
        "GetStatement": Query(LEDGERS, get_statement),
        "GetDailyReport": Query(LEDGERS, get_daily_report),
    },
)
