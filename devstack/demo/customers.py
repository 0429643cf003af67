"""The demo's part about customers: an email address belongs to one, and changes once it is confirmed."""

from typing import Any
from uuid import uuid4

from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych.customers.v1 import command_service_pb2 as commands
from diptych.customers.v1 import query_service_pb2 as queries
from diptych.customers.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.customers.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.customers.v1.types_pb2 import PostalAddress
from diptych_client import Rejection, aio

from devstack.demo.narration import UnexpectedResult, check, print_line, print_step
from devstack.stack import Stack

SCOPES = ("customers.write", "customers.read", "customers.find", "customers.confirm", "customers.all")
HOME = PostalAddress(
    recipient="Ada Lovelace",
    address_lines=["12 St James's Square"],
    postal_code="SW1Y 4JH",
    locality="London",
    region_code="GB",
)


class CustomersDemo:
    """Registers a customer, and changes the email address."""

    def __init__(self, stack: Stack) -> None:
        token = stack.token(*SCOPES)
        self._write = aio.connect(stack.settings.command_address, token=token, tls=stack.credentials or False)
        self._read = aio.connect(stack.settings.query_address, token=token, tls=stack.credentials or False)
        self._commands: Any = CommandServiceStub(self._write.channel)
        self._queries: Any = QueryServiceStub(self._read.channel)
        self._email = f"ada-{uuid4().hex[:6]}@example.com"

    async def run(self) -> str:
        """Run all steps; return the customer's id.

        Raises:
            UnexpectedResult, Rejection, OutcomeUnknown: a step had another result.
        """
        async with self._write, self._read:
            print_step("Register a customer, and find her by another spelling of her email address")
            registered = await self._send("RegisterCustomer", name="Ada Lovelace", email=self._email)
            customer_id = registered.aggregate_id
            await self._send("AddAddress", customer_id=customer_id, address_id="home", address=HOME)
            await self._find(self._email.upper(), registered)
            print_step("Register somebody else with the same address")
            await self._expect_rejection("EMAIL_TAKEN", "RegisterCustomer", name="Bob", email=self._email)
            print_step("Change the address: it is hers once she brings the confirmation that was sent there")
            await self._change_email(customer_id, f"new-{self._email}")
            return customer_id

    async def _send(self, method: str, **fields: Any) -> Receipt:
        request = getattr(commands, f"{method}Request")(**fields)
        return await self._write.send(getattr(self._commands, method), request)

    async def _find(self, email: str, fresh: Receipt) -> None:
        request = queries.FindCustomerRequest(email=email)
        customer = (await self._read.query(self._queries.FindCustomer, request, fresh=fresh)).customer
        print_line(f"{customer.customer_id}  {customer.name}, {customer.email}")
        check(customer.customer_id == fresh.aggregate_id, f"{email} is hers", customer)

    async def _expect_rejection(self, reason: str, method: str, **fields: Any) -> None:
        try:
            receipt = await self._send(method, **fields)
        except Rejection as rejection:
            check(rejection.reason == reason, f"rejected: {reason}", rejection)
        else:
            raise UnexpectedResult(f"{method} was not rejected: {receipt}")

    async def _change_email(self, customer_id: str, email: str) -> None:
        requested = await self._send("RequestEmailChange", customer_id=customer_id, email=email)
        request = queries.GetEmailConfirmationRequest(customer_id=customer_id)
        sent = await self._read.query(self._queries.GetEmailConfirmation, request, fresh=requested)
        forged = f"AAAA{sent.confirmation[4:]}"
        change = {"customer_id": customer_id, "email": email}
        await self._expect_rejection("CONFIRMATION_INVALID", "ConfirmEmail", **change, confirmation=forged)
        confirmed = await self._send("ConfirmEmail", **change, confirmation=sent.confirmation)
        await self._find(email, confirmed)
