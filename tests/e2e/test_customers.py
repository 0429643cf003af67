"""Customers through the whole stack: one for each email address, also while keys change."""

import asyncio
import random
import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt, Token
from diptych.customers.v1 import command_service_pb2 as commands
from diptych.customers.v1 import query_service_pb2 as queries
from diptych.customers.v1.types_pb2 import Customer, PostalAddress
from google.protobuf.message import Message
from redis.asyncio import Redis

from contracts.hidden_ids import hide
from contracts.key_ring import KeyRing
from devstack.stack import Stack
from operations import keys
from operations.processes import COMMAND_SERVER
from operations.verify.verification import verify
from tests.support.harness.caller import Caller
from tests.support.harness.clients_page import ROOT
from tests.support.harness.rpc_failure import reason_of
from tests.support.harness.waiting import until

RUN = uuid4().hex[:8]
REGISTRATIONS = 200
HOME = PostalAddress(
    recipient="Ada", address_lines=["12 St James's Square"], locality="London", region_code="GB"
)


@pytest.fixture
async def caller(stack: Stack) -> AsyncIterator[Caller]:
    scopes = (f"customers.{right}" for right in ("write", "read", "find", "confirm"))
    caller = Caller(stack, *scopes)
    yield caller
    await caller.close()


def name_email(name: str) -> str:
    return f"{name}-{RUN}@example.com"


async def register(caller: Caller, email: str) -> Any:
    return await caller.execute(commands.RegisterCustomerRequest(name="Ada", email=email))


async def try_register(caller: Caller, email: str) -> str:
    try:
        await register(caller, email)
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


async def find(caller: Caller, email: str, token: str = "") -> Customer:
    request = queries.FindCustomerRequest(email=email, at_least_as_fresh=token)
    customer: Customer = (await caller.query(request)).customer
    return customer


async def test_of_many_registrations_of_an_address_one_succeeds(caller: Caller) -> None:
    email = name_email("race")
    outcomes = await asyncio.gather(*(try_register(caller, email) for _ in range(REGISTRATIONS)))
    assert sorted(set(outcomes)) == ["", "EMAIL_TAKEN"]
    assert outcomes.count("") == 1


async def test_a_customer_is_found_by_the_present_address_alone(caller: Caller) -> None:
    old, new = name_email("old"), name_email("new")
    registered = await register(caller, old)
    id_, token = registered.aggregate_id, registered.consistency_token
    assert (await find(caller, old.upper(), token)).customer_id == id_
    pending = queries.GetEmailConfirmationRequest(customer_id=id_, at_least_as_fresh=token)
    assert await caller.rejection_reason(pending) == "EMAIL_CHANGE_NOT_FOUND"

    requested = await caller.execute(commands.RequestEmailChangeRequest(customer_id=id_, email=new))
    pending.at_least_as_fresh = requested.consistency_token
    confirmation = await caller.query(pending)
    assert confirmation.email == new
    confirm = commands.ConfirmEmailRequest(customer_id=id_, email=new, confirmation=confirmation.confirmation)
    forged = commands.ConfirmEmailRequest()
    forged.CopyFrom(confirm)
    forged.confirmation = f"AAAA{confirm.confirmation[4:]}"
    assert await caller.rejection_reason(forged) == "CONFIRMATION_INVALID"
    token = (await caller.execute(confirm)).consistency_token
    missing = queries.FindCustomerRequest(email=old, at_least_as_fresh=token)
    assert await caller.rejection_reason(missing) == "CUSTOMER_NOT_FOUND"
    assert (await find(caller, new, token)).email == new

    close = commands.CloseCustomerRequest(customer_id=id_)
    added = commands.AddAddressRequest(customer_id=id_, address_id="home", address=HOME)
    await caller.execute(added)
    token = (await caller.execute(close)).consistency_token
    assert await caller.rejection_reason(commands.ChangeNameRequest(customer_id=id_, name="B")) == (
        "CUSTOMER_CLOSED"
    )
    missing = queries.FindCustomerRequest(email=new, at_least_as_fresh=token)
    assert await caller.rejection_reason(missing) == "CUSTOMER_NOT_FOUND"
    ids = [id_, str(uuid4())]
    batch = await caller.query(queries.BatchGetCustomersRequest(customer_ids=ids, at_least_as_fresh=token))
    assert [customer.state for customer in batch.customers] == [Customer.STATE_CLOSED]
    assert list(batch.missing_customer_ids) == ids[1:]


async def test_no_key_stream_or_request_has_an_address_in_it(stack: Stack, caller: Caller) -> None:
    email = name_email("secret")
    token = (await register(caller, email)).consistency_token
    await find(caller, email, token)
    assert await try_register(caller, email) == "EMAIL_TAKEN"
    async with Redis.from_url(stack.settings.redis_url) as redis:
        assert [key async for key in redis.scan_iter(f"*{RUN}*", count=10_000)] == []
    postgres = await asyncpg.connect(stack.settings.database_url)
    try:
        for table in ("requests", "outbox"):
            statement = f"SELECT count(*) FROM {table} t WHERE CAST(t AS text) LIKE '%{RUN}%'"
            assert await postgres.fetchval(statement) == 0
        assert await postgres.fetchval(f"SELECT count(*) FROM streams WHERE id LIKE '%{RUN}%'") == 0
    finally:
        await postgres.close()


async def test_rights_and_invalid_addresses(stack: Stack, caller: Caller) -> None:
    for email in ("ada", "ada@example.com\u202e", "ad\u0430@example.com"):
        assert await try_register(caller, email) == "EMAIL_INVALID"
        find = queries.FindCustomerRequest(email=email)
        assert await caller.rejection_reason(find) == "CUSTOMER_NOT_FOUND"
    assert (
        await caller.rejection_reason(
            commands.RegisterCustomerRequest(customer_id="ada", name="Ada", email=name_email("id"))
        )
        == "REQUEST_INVALID"
    )
    reader = Caller(stack, "customers.read", "customers.write")
    try:
        for request in forbidden():
            assert await reader.rejection_reason(request) == "SCOPE_MISSING"
    finally:
        await reader.close()


def forbidden() -> list[Message]:
    """Return the queries that need a scope of their own."""
    return [
        queries.FindCustomerRequest(email=name_email("old")),
        queries.ListCustomersRequest(),
        queries.GetEmailConfirmationRequest(customer_id=str(uuid4())),
    ]


async def test_an_address_stays_unique_and_is_found_while_a_key_is_rotated(
    stack: Stack, caller: Caller
) -> None:
    email, path = name_email("rotated"), Path(stack.settings.keys)
    registered = await register(caller, email)
    new = keys.create(path, "unique", after=timedelta(seconds=1.5))
    ring = KeyRing.parse(await asyncio.to_thread(path.read_bytes))
    key, outcomes = ring.keys[new], list[str]()

    async def both_servers_use_the_new_key() -> bool:
        """Try to take the address at each server, and claim another one to see under which key."""
        used = []
        for _ in stack.of(COMMAND_SERVER):
            outcomes.append(await try_register(caller, email))
            probe = name_email(f"probe-{len(outcomes)}")
            streams = read_streams(await register(caller, probe))
            claim_id = hide(key, "customers.email_claim", probe)
            used.append(streams.get(f"customers.email_claim.{claim_id}"))
        return used == [1, 1]

    await until(both_servers_use_the_new_key)
    assert set(outcomes) == {"EMAIL_TAKEN"}
    assert (await count_claims(stack))[new] > 1
    assert (await find(caller, email)).customer_id == registered.aggregate_id
    report = await verify(stack.settings)
    assert report.clean, report.problems


async def count_claims(stack: Stack) -> dict[str, int]:
    """Return the number of taken claims by key, as the operator's page finds it."""
    page = await asyncio.to_thread((ROOT / "docs/operations.md").read_text)
    (query,) = re.findall(r"^```sql\n(SELECT left\(.*?)^```", page, re.MULTILINE | re.DOTALL)
    postgres = await asyncpg.connect(stack.settings.database_url)
    try:
        return {row["key"]: row["count"] for row in await postgres.fetch(query)}
    finally:
        await postgres.close()


def read_streams(receipt: Receipt) -> dict[str, int]:
    """Return the versions of the streams that a command was about."""
    token = Token.FromString(urlsafe_b64decode(receipt.consistency_token))
    return {each.stream: each.version for each in token.streams}


@pytest.mark.long
async def test_customers_who_change_addresses_at_once_never_share_one(stack: Stack, caller: Caller) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    emails = [name_email(f"mixed-{number}") for number in range(5)]
    ids, outcomes = list[str](), Counter[str]()

    async def act(numbers: random.Random) -> None:
        """Register or close a customer, or change an address."""
        email, id_ = numbers.choice(emails), numbers.choice([*ids, str(uuid4())])
        choice = numbers.randrange(20)
        if choice < 2:
            ids.append((await register(caller, email)).aggregate_id)
        elif choice == 2:
            await caller.execute(commands.CloseCustomerRequest(customer_id=id_))
            ids[:] = [each for each in ids if each != id_]
        else:
            request = commands.RequestEmailChangeRequest(customer_id=id_, email=email)
            token = (await caller.execute(request)).consistency_token
            query = queries.GetEmailConfirmationRequest(customer_id=id_, at_least_as_fresh=token)
            sent = await caller.query(query)
            confirm = commands.ConfirmEmailRequest(
                customer_id=id_, email=sent.email, confirmation=sent.confirmation
            )
            await caller.execute(confirm)
            outcomes["confirmed"] += 1

    async def work(number: int) -> None:
        numbers = random.Random(seed + number)
        for _ in range(100):
            try:
                await act(numbers)
            except grpc.aio.AioRpcError as error:
                outcomes[reason_of(error)] += 1

    await asyncio.gather(*map(work, range(16)))
    print(outcomes)
    assert outcomes["confirmed"] > 10
    assert outcomes["EMAIL_TAKEN"] > 10
    refusals = {"EMAIL_TAKEN", "EMAIL_UNCHANGED", "EMAIL_CHANGE_NOT_REQUESTED", "EMAIL_CHANGE_NOT_FOUND"}
    refusals |= {"CUSTOMER_CLOSED", "CUSTOMER_NOT_FOUND", "CONFIRMATION_OF_ANOTHER_ADDRESS"}
    assert set(outcomes) <= {"confirmed", *refusals}
    report = await verify(stack.settings)
    assert report.clean, report.problems
