"""ListTransactions, GetStatement and GetDailyReport on views as the projector writes them."""

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from diptych.banking.v1 import events_pb2 as happened
from diptych.banking.v1 import query_service_pb2 as protocol
from diptych.banking.v1.types_pb2 import DailyReport, Statement, Transaction
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from redis.asyncio import Redis

from operations.housekeeping.histories import trim_projection
from projector.fold import fold
from projector.projections.banking.account_ledger import LEDGERS
from projector.records import Update
from projector.redis_archive import RedisArchive
from projector.redis_store import RedisStore
from query_server import history_pages
from query_server.contexts import banking
from query_server.redis_client import RedisClient
from query_server.view_reader import ViewReader
from runtime.grpc.rpc_error import RpcError
from runtime.redis.address import RedisAddress
from runtime.redis.pipeline import Command
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import respond
from tests.support.models import accounts
from tests.support.models.accounts import Account, money

INCARNATION = str(uuid4())
Kind = Transaction.Kind


class Ledgers:
    """Writes ledgers as the projector does, and calls the queries that read them."""

    def __init__(self, redis: Redis, views: ViewReader) -> None:
        self.redis, self.views = redis, views
        self._store = RedisStore(redis, LEDGERS.view)

    async def begin_build(self) -> None:
        assert await self._store.read_build() is None
        await self._store.begin_build(INCARNATION, "epoch")
        assert await self._store.read_build() is not None
        await self.redis.set(LEDGERS.view.ready, INCARNATION)

    async def put(self, *changed_accounts: Account) -> None:
        before = await self._store.load([account.id for account in changed_accounts])
        updates = []
        for account in changed_accounts:
            folded = fold(LEDGERS, before[account.id], account.events)
            assert folded.error is None
            updates.append(
                Update(before[account.id], folded.record, folded.content, folded.applied_events, None, 0)
            )
        assert await self._store.write(updates) == set()

    async def get_page(self, **request: Any) -> protocol.ListTransactionsResponse:
        message = protocol.ListTransactionsRequest(**request)
        return protocol.ListTransactionsResponse.FromString(
            await respond(banking.list_transactions, self.views, message, 0.1)
        )

    async def list_lines(self, **request: Any) -> list[Transaction]:
        """Return the lines of all pages."""
        lines, token = list[Transaction](), ""
        while True:
            page = await self.get_page(page_token=token, **request)
            lines += page.transactions
            if not (token := page.next_page_token):
                return lines

    async def get_statement(self, account_id: str, month: str, token: str = "") -> Statement:
        request = protocol.GetStatementRequest(account_id=account_id, month=month, at_least_as_fresh=token)
        data = await respond(banking.get_statement, self.views, request, 0.1)
        return protocol.GetStatementResponse.FromString(data).statement

    async def get_report(self, day: str, token: str = "", currency: str = "") -> DailyReport:
        request = protocol.GetDailyReportRequest(day=day, currency_code=currency, at_least_as_fresh=token)
        data = await respond(banking.get_daily_report, self.views, request, 0.1)
        return protocol.GetDailyReportResponse.FromString(data).report


@pytest.fixture
async def ledgers(redis_url: str) -> AsyncIterator[Ledgers]:
    async with Redis.from_url(redis_url) as redis, RedisClient(RedisAddress(redis_url)) as reader:
        ledgers = Ledgers(redis, ViewReader(reader, LEDGERS.view))
        await ledgers.begin_build()
        yield ledgers


def summarise(lines: Sequence[Transaction]) -> list[tuple[str, str]]:
    return [(Kind.Name(line.kind).removeprefix("KIND_"), f"{line.balance.units}") for line in lines]


async def test_a_statement_lists_every_line_with_its_balance_newest_first(ledgers: Ledgers) -> None:
    account = Account("a-1")
    account.record(happened.MoneyDeposited, 900_00, reference="pay")
    account.record(happened.MoneyHeld, 200_00, hold_id="h-1")
    account.record(happened.AccountFrozen, reason="odd")
    account.record(happened.AccountUnfrozen)
    account.record(happened.HeldMoneyCaptured, 200_00, hold_id="h-1")
    account.record(happened.TransferSent, 50_00, reference="rent", to_account_id="a-2", transfer_id="t-1")
    await ledgers.put(account)
    lines = await ledgers.list_lines(account_id="a-1")
    assert summarise(lines) == [
        ("SENT", "650"),
        ("CAPTURED", "700"),
        ("UNFROZEN", "900"),
        ("FROZEN", "900"),
        ("HELD", "900"),
        ("DEPOSITED", "900"),
        ("OPENED", "0"),
    ]
    sent, held, frozen = lines[0], lines[4], lines[3]
    assert (sent.reference, sent.counterpart_account_id, sent.related_id) == ("rent", "a-2", "t-1")
    assert (held.held, held.related_id, frozen.reference) == (money(200_00), "h-1", "odd")
    assert {line.actor for line in lines} == {"alice"}
    assert [line.version for line in lines] == [7, 6, 5, 4, 3, 2, 1]
    assert all(line.paid_in == money(900_00) for line in lines[:6])


@pytest.mark.parametrize("count", [1, 2, 31, 33, 400])
async def test_a_period_has_exactly_its_lines_whatever_the_page_size(ledgers: Ledgers, count: int) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    account = accounts.make_random_account(chance, "a-1", count, hours=chance.choice([0.0, 1.0, 50.0]))
    await ledgers.put(account)
    times = [event.recorded_at for event in account.events]
    for _ in range(8):
        bounds = [chance.choice(times) + timedelta(microseconds=chance.choice([-1, 0, 1])) for _ in range(2)]
        period = {
            name: bound
            for name, bound in zip(("booked_from", "booked_before"), bounds, strict=True)
            if chance.random() < 0.8
        }
        lines = await ledgers.list_lines(account_id="a-1", page_size=chance.choice([3, 100]), **period)
        low = period.get("booked_from", times[0])
        high = period.get("booked_before", times[-1] + timedelta(1))
        expected = [version for version, time in enumerate(times, 1) if low <= time < high]
        assert [line.version for line in lines] == expected[::-1]


@pytest.mark.parametrize("seconds", [-(2**63), -1, 253_402_300_800, 2**63 - 1])
async def test_a_bound_outside_the_calendar_lists_all_or_nothing(ledgers: Ledgers, seconds: int) -> None:
    await ledgers.put(accounts.make_random_account(random.Random(2), "a-1", 9))
    bound = Timestamp(seconds=seconds)
    later = await ledgers.list_lines(account_id="a-1", booked_from=bound)
    earlier = await ledgers.list_lines(account_id="a-1", booked_before=bound)
    assert (len(later), len(earlier)) == ((9, 0) if seconds < 0 else (0, 9))


async def test_a_page_token_of_another_period_is_refused(ledgers: Ledgers) -> None:
    await ledgers.put(accounts.make_random_account(random.Random(1), "a-1", 9))
    first = await ledgers.get_page(account_id="a-1", page_size=2)
    for other in ({"account_id": "a-2"}, {"account_id": "a-1", "booked_from": accounts.START}):
        with pytest.raises(RpcError) as error:
            await ledgers.get_page(page_size=2, page_token=first.next_page_token, **other)
        assert error.value.reason == "PAGE_TOKEN_INVALID"


async def test_statements_of_successive_months_add_up(ledgers: Ledgers) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    account = accounts.make_random_account(random.Random(seed), "a-1", 300)
    await ledgers.put(account)
    currency = account.currency
    balance = 0
    for month in ("2025-12", *(f"2026-{number:02}" for number in range(1, 13)), "2027-01"):
        year, number = map(int, month.split("-"))
        month_events = [
            (event, cents[0])
            for event, cents in zip(account.events, account.cents, strict=True)
            if (event.recorded_at.year, event.recorded_at.month) == (year, number)
        ]
        paid_in = sum(_cents(event) for event, _ in month_events if _is_incoming(event))
        end = month_events[-1][1] if month_events else balance
        assert await ledgers.get_statement("a-1", month) == Statement(
            account_id="a-1",
            month=month,
            opening_balance=money(balance, currency),
            paid_in=money(paid_in, currency),
            paid_out=money(paid_in - (end - balance), currency),
            closing_balance=money(end, currency),
        )
        balance = end


def _cents(event: Any) -> int:
    amount = accounts.parse_message(event).amount
    return int(amount.units * 100 + amount.nanos // accounts.CENT)


def _is_incoming(event: Any) -> bool:
    return isinstance(accounts.parse_message(event), happened.MoneyDeposited | happened.TransferReceived)


async def test_a_line_at_midnight_belongs_to_the_month_that_begins(ledgers: Ledgers) -> None:
    account = Account("a-1", at=datetime(2026, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    account.record(happened.MoneyDeposited, 100)
    account.record(happened.MoneyDeposited, 200, timedelta(microseconds=1))
    await ledgers.put(account)
    assert (await ledgers.get_statement("a-1", "2026-01")).paid_in == money(100)
    assert (await ledgers.get_statement("a-1", "2026-02")).paid_in == money(200)


async def test_a_statement_steps_over_the_event_that_the_owner_was_forgotten(ledgers: Ledgers) -> None:
    account = Account("a-1", at=datetime(2026, 1, 31, tzinfo=UTC))
    account.record(happened.MoneyDeposited, 100)
    account.forget_owner(timedelta(hours=1))
    await ledgers.put(account)
    before = await ledgers.get_statement("a-1", "2026-01")
    assert (before.closing_balance, before.paid_in) == (money(100), money(100))
    account.record(happened.MoneyWithdrawn, 30, timedelta(days=1))
    await ledgers.put(account)
    after = await ledgers.get_statement("a-1", "2026-02")
    assert (after.opening_balance, after.closing_balance) == (money(100), money(70))
    assert [line.version for line in await ledgers.list_lines(account_id="a-1")] == [4, 3, 2, 1]


async def test_a_long_ledger_is_searched_in_few_reads(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = accounts.make_random_account(random.Random(3), "a-1", 5_000, hours=2.0)
    await ledgers.put(account)
    reads: list[int] = []
    read_while_ready = ledgers.views.read_while_ready

    async def count_reads(*commands: Command) -> tuple[str, list[Any]]:
        reads.extend(len(command) - 2 for command in commands if str(command[1]).startswith("history:"))
        return await read_while_ready(*commands)

    monkeypatch.setattr(ledgers.views, "read_while_ready", count_reads)
    await ledgers.get_statement("a-1", "2026-06")
    assert len(reads) <= 8
    assert max(reads) < 2 * history_pages.FAN_OUT


async def test_a_statement_of_a_missing_account_is_not_found(ledgers: Ledgers) -> None:
    for call in (ledgers.get_page(account_id="nobody"), ledgers.get_statement("nobody", "2026-01")):
        with pytest.raises(RpcError) as error:
            await call
        assert (error.value.reason, error.value.code) == ("ACCOUNT_NOT_FOUND", StatusCode.NOT_FOUND)


async def test_a_report_sums_the_lines_of_all_accounts_on_a_day(ledgers: Ledgers) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    all_accounts = [
        accounts.make_random_account(chance, f"a-{number}", chance.randint(1, 30)) for number in range(20)
    ]
    await ledgers.put(*all_accounts)
    expected = accounts.sum_counters(accounts.join_events(all_accounts))
    for day, sums in expected.items():
        report = await ledgers.get_report(day)
        assert [(s.kind, s.amount.currency_code) for s in report.sums] == sorted(
            (s.kind, s.amount.currency_code) for s in report.sums
        )
        counts: dict[str, int] = {}
        for sum_ in report.sums:
            what = f"{Kind.Name(sum_.kind)}/{sum_.amount.currency_code}"
            nanos = sums.get(f"units/{what}", 0) * 10**9 + sums.get(f"nanos/{what}", 0)
            assert sum_.amount.units * 10**9 + sum_.amount.nanos == nanos
            counts[f"count/{what}"] = sum_.count
        assert counts == {name: sum_ for name, sum_ in sums.items() if name.startswith("count/")}
        for currency in {sum_.amount.currency_code for sum_ in report.sums}:
            part = await ledgers.get_report(day, currency=currency)
            assert list(part.sums) == [s for s in report.sums if s.amount.currency_code == currency]
    assert await ledgers.get_report("2019-05-05") == DailyReport(day="2019-05-05")


async def test_a_response_includes_the_writes_of_its_token_or_is_refused(ledgers: Ledgers) -> None:
    account = Account("a-1")
    await ledgers.put(account)
    current = mint_token(INCARNATION, {"banking.account.a-1": 1})
    assert (await ledgers.get_statement("a-1", "2026-01", current)).closing_balance == money(0)
    assert len((await ledgers.get_report("2026-01-30", current)).sums) == 1
    later = mint_token(INCARNATION, {"banking.account.a-1": 2})
    for call in (
        ledgers.get_page(account_id="a-1", at_least_as_fresh=later),
        ledgers.get_statement("a-1", "2026-01", later),
        ledgers.get_report("2026-01-30", later),
    ):
        with pytest.raises(RpcError) as error:
            await call
        assert error.value.reason == "VIEW_BEHIND"


async def test_each_line_is_in_one_period_although_a_clock_was_ahead(ledgers: Ledgers) -> None:
    account = Account("a-1")
    for number in range(200):
        wrong = number % 50 == 20
        account.at += timedelta(hours=3) if wrong else timedelta(0)
        account.record(happened.MoneyDeposited, 1_00, after=timedelta(minutes=1), reference="pay")
        account.at -= timedelta(hours=3) if wrong else timedelta(0)
    await ledgers.put(account)
    lines = await ledgers.list_lines(account_id="a-1")
    times = [line.book_time.ToDatetime(UTC) for line in lines]
    assert times == sorted(times, reverse=True)
    periods = [account.events[0].recorded_at + timedelta(minutes=15 * quarter) for quarter in range(40)]
    listed = [
        line.version
        for start, end in pairwise(periods)
        for line in reversed(await ledgers.list_lines(account_id="a-1", booked_from=start, booked_before=end))
    ]
    assert listed == list(range(1, 202))


async def test_what_needs_archived_lines_says_so(ledgers: Ledgers) -> None:
    account = Account("a-1", at=datetime(2026, 1, 10, tzinfo=UTC))
    for _ in range(5):  # on the 11th of five months, versions 2 to 6
        account.record(happened.MoneyDeposited, 1_00, after=timedelta(days=30))
    await ledgers.put(account)
    whole = {month: await ledgers.get_statement("a-1", f"2026-{month:02}") for month in range(1, 8)}
    report = await ledgers.get_report("2026-02-09")
    store = RedisArchive(ledgers.redis, LEDGERS.view)
    await store.read_build()
    april = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp()) * 10**9
    assert await trim_projection(LEDGERS, store, april, False) == 2
    for month in (1, 2, 3):
        with pytest.raises(RpcError) as error:
            await ledgers.get_statement("a-1", f"2026-{month:02}")
        assert (error.value.code, error.value.reason) == (StatusCode.NOT_FOUND, "HISTORY_ARCHIVED")
        assert error.value.metadata == {"account_id": "a-1", "archived_before_version": "3"}
    for month in (4, 5, 6, 7):
        assert await ledgers.get_statement("a-1", f"2026-{month:02}") == whole[month]
    page = await ledgers.get_page(account_id="a-1")
    assert [line.version for line in page.transactions] == [6, 5, 4, 3]
    assert (page.next_page_token, page.archived_before_version) == ("", 3)
    early = await ledgers.get_page(
        account_id="a-1", booked_before=Timestamp(seconds=april // 10**9 - 86_400 * 60)
    )
    assert (list(early.transactions), early.archived_before_version) == ([], 3)
    assert await ledgers.get_report("2026-02-09") == report


async def test_statements_and_reports_are_refused_during_a_rebuild(ledgers: Ledgers) -> None:
    await ledgers.redis.delete(LEDGERS.view.ready)
    for call in (ledgers.get_statement("a-1", "2026-01"), ledgers.get_report("2026-01-30")):
        with pytest.raises(RpcError) as error:
            await call
        assert error.value.reason == "VIEW_REBUILDING"


async def test_a_kind_of_newer_code_is_refused_with_view_newer(ledgers: Ledgers) -> None:
    await ledgers.redis.hset(LEDGERS.view.event_counters("day", "2026-01-30"), "count/KIND_PAWNED/EUR", 1)
    with pytest.raises(RpcError) as error:
        await ledgers.get_report("2026-01-30")
    assert error.value.reason == "VIEW_NEWER"
