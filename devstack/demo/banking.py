"""The demo's part about banking: what needs a second person, and a case that another one clears."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from diptych.banking.v1 import command_service_pb2 as commands
from diptych.banking.v1 import query_service_pb2 as queries
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.banking.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.banking.v1.types_pb2 import Account, Case, CaseKind
from diptych_client import Rejection, aio
from google.type.money_pb2 import Money

from devstack.demo.narration import UnexpectedResult, check, print_line, print_step
from devstack.demo.requests import format_amount
from devstack.stack import Stack

SCOPES = {
    "teller": ("banking.open", "banking.deposit", "banking.pay", "banking.approve", "banking.all"),
    "manager": ("banking.approve", "banking.all"),
    "officer": ("banking.compliance", "banking.all"),
}
"""The scopes of each person."""


class BankingDemo:
    """Pays money in and out of an account until a second person has to agree, or to look."""

    def __init__(self, stack: Stack) -> None:
        tls = stack.credentials or False
        self._people = {
            name: aio.connect(
                stack.settings.command_address, token=stack.token(*scopes, subject=name), tls=tls
            )
            for name, scopes in SCOPES.items()
        }
        reading = stack.token("banking.read", "banking.compliance", "banking.all", subject="officer")
        self._read = aio.connect(stack.settings.query_address, token=reading, tls=tls)
        self._queries: Any = QueryServiceStub(self._read.channel)
        self._account = f"banking-{uuid4().hex[:8]}"
        self._started = datetime.now(UTC)

    async def run(self) -> None:
        """Run all steps.

        Raises:
            UnexpectedResult, Rejection, OutcomeUnknown: a step had another result.
        """
        teller, manager, officer = self._people.values()
        async with teller, manager, officer, self._read:
            print_step("Withdraw 9,500 EUR, and 1,000 EUR more")
            await self._send("teller", "OpenAccount", owner_id="ada", currency_code="EUR")
            for units in (9_000, 9_000):
                await self._send("teller", "Deposit", amount=euros(units), reference="savings")
            await self._send("teller", "Withdraw", amount=euros(9_500), reference="cash")
            more = {"amount": euros(1_000), "reference": "cash"}
            await self._expect("WITHDRAWAL_NEEDS_APPROVAL", "Withdraw", **more)
            print_step("Request the withdrawal of 7,000 EUR; who has requested it cannot approve it")
            id_ = uuid4().hex
            request = {"withdrawal_id": id_, "amount": euros(7_000), "reference": "a car"}
            await self._send("teller", "RequestWithdrawal", **request)
            await self._expect("WITHDRAWAL_SAME_CALLER", "ApproveWithdrawal", withdrawal_id=id_)
            approved = await self._send("manager", "ApproveWithdrawal", withdrawal_id=id_)
            await self._check_account(approved, Account.STATE_OPEN, euros(1_500))
            print_step("Pay in 9,000 EUR more: three deposits are taken for a large one in pieces")
            found = await self._send("teller", "Deposit", amount=euros(9_000), reference="savings")
            await self._check_account(found, Account.STATE_FROZEN, euros(10_500))
            await self._expect("ACCOUNT_FROZEN", "Withdraw", **more)
            case = await self._find_case(found)
            print_line(f"{CaseKind.Name(case.kind)} of {case.account_id}, caused by {case.caused_by}")
            cleared = await self._send(
                "officer", "ClearCase", case_id=case.case_id, reason="she sold her boat"
            )
            await self._check_account(cleared, Account.STATE_OPEN, euros(10_500))

    async def _send(self, person: str, method: str, **fields: Any) -> Any:
        connection = self._people[person]
        request = getattr(commands, f"{method}Request")(**fields)
        if "account_id" in request.DESCRIPTOR.fields_by_name:
            request.account_id = self._account
        return await connection.send(getattr(CommandServiceStub(connection.channel), method), request)

    async def _expect(self, reason: str, method: str, **fields: Any) -> None:
        try:
            await self._send("teller", method, **fields)
        except Rejection as rejection:
            check(rejection.reason == reason, f"{method}: {reason}", rejection)
        else:
            raise UnexpectedResult(f"{method}: {reason} was expected")

    async def _check_account(self, fresh: Any, state: Account.State.ValueType, balance: Money) -> None:
        request = queries.GetAccountRequest(account_id=self._account)
        account = (await self._read.query(self._queries.GetAccount, request, fresh=fresh)).account
        shown = f"{Account.State.Name(account.state)}, {format_amount(account.balance)}"
        check((account.state, account.balance) == (state, balance), shown, account)

    async def _find_case(self, fresh: Any) -> Case:
        request = queries.ListCasesRequest(account_id=self._account, state=Case.STATE_OPEN)
        request.opened_from.FromDatetime(self._started.replace(hour=0, minute=0, second=0, microsecond=0))
        cases = (await self._read.query(self._queries.ListCases, request, fresh=fresh)).cases
        check(len(cases) == 1, "one case is open", cases)
        case: Case = cases[0]
        return case


def euros(units: int) -> Money:
    return Money(currency_code="EUR", units=units)
