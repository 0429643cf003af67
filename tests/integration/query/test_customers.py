"""Customers found by email address, and confirmations, on views that may be behind each other."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from diptych.customers.v1.types_pb2 import Confirmation, Customer, EmailClaim

from contracts.key_ring import Purpose
from contracts.signed_tokens import TokenSigner
from query_server.contexts.customers import CLAIMS, CONTEXT, CUSTOMERS
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.people import ADA, list_claim_ids
from tests.support.harness.keys import get_ring
from tests.support.harness.query_calls import QueryCalls
from tests.support.harness.read_model import INCARNATION, ReadModel

MAIL = "ada@example.com"


@pytest.fixture
async def calls(model: ReadModel) -> QueryCalls:
    await model.redis.mset({view.ready: INCARNATION for view in (CUSTOMERS, CLAIMS)})
    return QueryCalls(model, CONTEXT)


async def put(model: ReadModel, view: Any, id_: str, message: Any) -> None:
    message.version = 1
    fields: dict[Any, Any] = {"data": message.SerializeToString(), "version": 1}
    await model.redis.hset(view.key(id_), mapping=fields)


async def put_customer(model: ReadModel, **fields: Any) -> None:
    customer = Customer(customer_id=ADA, state=Customer.STATE_OPEN, email=MAIL)
    customer.MergeFrom(Customer(**fields))
    await put(model, CUSTOMERS, ADA, customer)


async def put_claim(model: ReadModel, customer_id: str) -> None:
    (id_,) = list_claim_ids(MAIL)
    await put(model, CLAIMS, id_, EmailClaim(claim_id=id_, customer_id=customer_id))


async def find(calls: QueryCalls, email: str = MAIL) -> str:
    """Return the id of the customer with an address, or the reason of the error."""
    try:
        return str((await calls.call("FindCustomer", email=email)).customer.customer_id)
    except RpcError as error:
        assert MAIL not in str(vars(error))
        return error.reason


async def test_a_customer_is_found_if_claim_and_customer_agree(model: ReadModel, calls: QueryCalls) -> None:
    assert await find(calls) == "CUSTOMER_NOT_FOUND"
    await put_claim(model, ADA)
    assert await find(calls) == "CUSTOMER_NOT_FOUND"  # the customer's view is behind
    await put_customer(model)
    assert [await find(calls, email) for email in (MAIL, MAIL.upper())] == [ADA, ADA]
    for fields in ({"email": "ada@other.example"}, {"state": Customer.STATE_CLOSED}):
        await put_customer(model, **fields)  # the claim's view is behind
        assert await find(calls) == "CUSTOMER_NOT_FOUND"
    await put_claim(model, "")
    assert await find(calls) == "CUSTOMER_NOT_FOUND"
    assert await find(calls, "no address") == "CUSTOMER_NOT_FOUND"


async def test_a_confirmation_says_what_is_pending_until_it_expires(
    model: ReadModel, calls: QueryCalls
) -> None:
    async def confirm() -> Any:
        return await calls.call("GetEmailConfirmation", customer_id=ADA)

    await put_customer(model)
    pending = Customer.PendingEmail(email="ada@other.example")
    pending.expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    await put_customer(model, pending_email=pending)
    response = await confirm()
    content = TokenSigner(Purpose.CONFIRMATION, get_ring).verify(response.confirmation)
    assert Confirmation.FromString(content) == Confirmation(
        customer_id=ADA,
        claim_id=list_claim_ids("ada@other.example")[0],
        expires_at=pending.expire_time,
    )
    assert (response.email, response.expire_time) == (pending.email, pending.expire_time)
    pending.expire_time.FromDatetime(datetime.now(UTC))
    await put_customer(model, pending_email=pending)
    with pytest.raises(RpcError, match="email change not found"):
        await confirm()
