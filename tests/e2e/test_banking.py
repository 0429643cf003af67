"""Banking through the whole stack: the views and reports agree with the commands."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import grpc
import pytest
from diptych.banking.v1 import command_service_pb2 as commands
from diptych.banking.v1 import query_service_pb2 as queries
from diptych.banking.v1.types_pb2 import Case, CaseKind, Hold, Transaction
from google.type.money_pb2 import Money
from redis.asyncio import Redis

from devstack.stack import Stack
from operations.verify.verification import verify
from tests.support.harness.caller import Caller
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.trade import grant
from tests.support.harness.waiting import until

Kind = Transaction.Kind
SCOPES = tuple(f"banking.{duty}" for duty in ("open", "deposit", "pay", "hold", "read", "report"))


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[Caller]:
    caller = Caller(stack, *SCOPES)
    yield caller
    await caller.close()


def kroner(units: int) -> Money:
    """Return an amount in a currency that no other test uses."""
    return Money(currency_code="DKK", units=units)


async def open_account(caller: Caller, units: int) -> tuple[str, str]:
    """Open an account with this balance; return its id and the consistency token."""
    account_id = uuid4().hex
    await caller.execute(
        commands.OpenAccountRequest(account_id=account_id, owner_id="ada", currency_code="DKK")
    )
    paid = await caller.execute(
        commands.DepositRequest(account_id=account_id, amount=kroner(units), reference="pay")
    )
    return account_id, paid.consistency_token


async def read_daily_sums(caller: Caller, day: str, token: str = "") -> dict[str, tuple[int, int]]:
    """Return the count and the sum in kroner of a day's transactions, by kind."""
    asked = queries.GetDailyReportRequest(day=day, at_least_as_fresh=token)
    report = (await caller.query(asked)).report
    return {
        Kind.Name(sum_.kind).removeprefix("KIND_"): (sum_.count, sum_.amount.units)
        for sum_ in report.sums
        if sum_.amount.currency_code == "DKK"
    }


async def test_who_looked_at_an_account_is_on_record(caller: Caller, stack: Stack) -> None:
    account_id, token = await open_account(caller, 900)
    await caller.query(queries.GetAccountRequest(account_id=account_id, at_least_as_fresh=token))
    connection = await asyncpg.connect(stack.settings.database_url)
    rows = await connection.fetch("SELECT caller, method FROM reads WHERE $1 = ANY (ids)", account_id)
    await connection.close()
    assert [tuple(row) for row in rows] == [("alice", "/diptych.banking.v1.QueryService/GetAccount")]


async def test_a_transfer_is_on_both_statements_and_in_the_report(caller: Caller) -> None:
    (one, _), (two, token) = await open_account(caller, 900), await open_account(caller, 10)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    before = await read_daily_sums(caller, today, token)
    await caller.execute(
        commands.TransferRequest(
            transfer_id=uuid4().hex,
            from_account_id=one,
            to_account_id=two,
            amount=kroner(300),
            reference="rent",
        )
    )
    placing = commands.PlaceHoldRequest(
        hold_id=uuid4().hex, account_id=one, amount=kroner(200), reference="an order", customer_id="ada"
    )
    placing.deadline.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    await caller.execute(placing)
    captured = await caller.execute(commands.CaptureHoldRequest(hold_id=placing.hold_id, amount=kroner(150)))
    fresh = captured.consistency_token
    seen = (await caller.query(queries.GetAccountRequest(account_id=one, at_least_as_fresh=fresh))).account
    assert (seen.balance, seen.held, seen.available) == (kroner(450), kroner(0), kroner(450))
    hold = (await caller.query(queries.GetHoldRequest(hold_id=placing.hold_id, at_least_as_fresh=fresh))).hold
    assert (hold.state, hold.captured) == (Hold.STATE_CAPTURED, kroner(150))
    asked = queries.ListTransactionsRequest(account_id=one, page_size=3, at_least_as_fresh=fresh)
    page = await caller.query(asked)
    lines = list(page.transactions)
    asked.page_token = page.next_page_token
    lines += (await caller.query(asked)).transactions
    assert [(Kind.Name(line.kind), line.balance.units, line.held.units) for line in lines] == [
        ("KIND_CAPTURED", 450, 0),
        ("KIND_HELD", 600, 200),
        ("KIND_SENT", 600, 0),
        ("KIND_DEPOSITED", 900, 0),
        ("KIND_OPENED", 0, 0),
    ]
    month = lines[0].book_time.ToDatetime().strftime("%Y-%m")
    read = queries.GetStatementRequest(account_id=one, month=month, at_least_as_fresh=fresh)
    statement = (await caller.query(read)).statement
    assert (statement.opening_balance, statement.closing_balance) == (kroner(0), kroner(450))
    assert (statement.paid_in, statement.paid_out) == (kroner(900), kroner(450))
    days = {today, f"{datetime.now(UTC):%Y-%m-%d}"}  # two days if midnight has passed
    after = {day: await read_daily_sums(caller, day, fresh) for day in days}

    def more(kind: str) -> tuple[int, int]:
        counts, sums = zip(*(each.get(kind, (0, 0)) for each in after.values()), strict=True)
        had = before.get(kind, (0, 0))
        return sum(counts) - had[0], sum(sums) - had[1]

    assert {kind: more(kind) for kind in ("SENT", "RECEIVED", "HELD", "CAPTURED")} == {
        "SENT": (1, 300),
        "RECEIVED": (1, 300),
        "HELD": (1, 200),
        "CAPTURED": (1, 150),
    }


@pytest.mark.parametrize("day", ["", "2026-13-01", "2026-11-31", "2026-1-1", "tomorrow"])
async def test_an_invalid_day_is_rejected(caller: Caller, day: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await caller.query(queries.GetDailyReportRequest(day=day))
    assert (refused.value.code(), reason_of(refused.value)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_INVALID",
    )


async def test_a_payment_to_a_listed_name_is_rejected_and_its_case_is_on_record(
    stack: Stack, caller: Caller
) -> None:
    (account_id, _), name = await open_account(caller, 900), f"Mallory {uuid4().hex}"
    officer = Caller(stack, "banking.compliance", subject="officer")
    await officer.execute(commands.AddListedNameRequest(name=name, reason="sanctions"))
    paying = commands.WithdrawRequest(
        request_id=str(uuid4()),
        account_id=account_id,
        amount=kroner(1),
        reference="cash",
        counterparty_name=name.upper(),
    )
    assert await caller.rejection_reason(paying) == "ACCOUNT_FROZEN"
    assert await caller.rejection_reason(paying) == "ACCOUNT_FROZEN"  # as recorded

    async def list_cases() -> list[Case]:
        return list((await officer.query(queries.ListCasesRequest(account_id=account_id))).cases)

    async def is_listed() -> bool:
        return bool(await list_cases())

    await until(is_listed)
    (case,) = await list_cases()
    assert (case.kind, case.state, case.counterparty_name) == (
        CaseKind.CASE_KIND_LISTED_NAME,
        Case.STATE_OPEN,
        name.upper(),
    )
    cleared = commands.ClearCaseRequest(case_id=case.case_id, reason="another person of this name")
    assert (
        await caller.rejection_reason(
            commands.WithdrawRequest(account_id=account_id, amount=kroner(1), reference="cash")
        )
        == "ACCOUNT_FROZEN"
    )
    fresh = (await officer.execute(cleared)).consistency_token
    paying.request_id, paying.counterparty_name = str(uuid4()), ""
    await caller.execute(paying)
    request = queries.ListCasesRequest(
        account_id=account_id, state=Case.STATE_CLEARED, at_least_as_fresh=fresh
    )
    assert [each.case_id for each in (await officer.query(request)).cases] == [case.case_id]
    await officer.close()


async def test_pieces_of_several_accounts_at_once_are_counted_by_all_servers(
    stack: Stack, caller: Caller
) -> None:
    accounts = [(await open_account(caller, 9_000))[0] for _ in range(3)]
    person = Caller(stack, "banking.pay", subject=f"person-{uuid4().hex}")
    requests = [
        commands.TransferRequest(
            from_account_id=accounts[number % 3],
            to_account_id=accounts[(number + 1) % 3],
            amount=kroner(2_500),
            reference="piece",
        )
        for number in range(6)
    ]

    async def pay(request: commands.TransferRequest) -> str:
        try:
            await person.execute(request)
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        return "OK"

    reasons = Counter(await asyncio.gather(*map(pay, requests)))
    assert reasons == {"OK": 4, "TRANSFER_NEEDS_APPROVAL": 2}
    await person.close()


async def test_mandates_are_listed_by_owner_and_by_account(stack: Stack, caller: Caller) -> None:
    account_id, owner_id = uuid4().hex, f"owner-{uuid4().hex}"
    opening = commands.OpenAccountRequest(account_id=account_id, owner_id=owner_id, currency_code="DKK")
    await caller.execute(opening)
    owner = Caller(stack, "banking.mandate", "banking.read", "banking.own", subject=owner_id)
    granted = await owner.execute(grant(account_id, "bob", "DKK"))
    fresh = granted.consistency_token
    for account in ("", account_id):
        request = queries.ListMandatesRequest(owner_id=owner_id, account_id=account, at_least_as_fresh=fresh)
        for reader in (owner, caller):
            (mandate,) = (await reader.query(request)).mandates
            assert (mandate.mandate_id, mandate.customer_id) == (granted.aggregate_id, "bob")
    by_account = queries.ListMandatesRequest(account_id=account_id, at_least_as_fresh=fresh)
    assert len((await caller.query(by_account)).mandates) == 1
    assert await owner.rejection_reason(by_account) == "NOT_THE_OWNER"
    assert await caller.rejection_reason(queries.GetMandateRequest(mandate_id="m")) == "MANDATE_NOT_FOUND"
    await owner.close()


async def test_verify_agrees_and_finds_a_wrong_counter(stack: Stack, caller: Caller) -> None:
    await open_account(caller, 1)
    report = await verify(stack.settings)
    assert report.clean, report.to_text()
    assert report.counts["event counters"] >= 3
    async with Redis.from_url(stack.settings.redis_url) as redis:
        (day, *_) = [key async for key in redis.scan_iter(match="event_counters:banking.account_ledger:*")]
        await redis.hincrby(day, "count/KIND_OPENED/DKK", 1)
        found = [problem.text for problem in (await verify(stack.settings)).problems]
        await redis.hincrby(day, "count/KIND_OPENED/DKK", -1)
    assert len(found) == 1
    assert found[0].startswith("count/KIND_OPENED/DKK is ")
