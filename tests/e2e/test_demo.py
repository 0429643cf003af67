"""The demo ignores the settings of its user, and fails if a step has another result."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from diptych_client import Rejection

from devstack.demo.narration import UnexpectedResult
from devstack.demo.ordering import WRITE_SCOPES, OrderingDemo
from devstack.stack import Stack
from runtime.jetstream import Connection, connect
from tests.support.harness.keys import get_ring


@pytest.fixture
async def connection(stack: Stack) -> AsyncIterator[Connection]:
    async with await connect(stack.settings.nats_url, "test", get_ring) as connection:
        yield connection


async def test_the_demo_succeeds_whatever_the_users_settings_are() -> None:
    unreachable = {
        "DIPTYCH_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "DIPTYCH_NATS_URL": "nats://127.0.0.1:1",
        "DIPTYCH_REDIS_URL": "redis://127.0.0.1:1/0",
        "DIPTYCH_COMMAND_ADDRESS": "127.0.0.1:1",
        "DIPTYCH_TOKEN_ISSUER": "somebody else",
    }
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devstack.demo"), env=os.environ | unreachable, stdout=PIPE, stderr=STDOUT
    )
    output = (await demo.communicate())[0].decode()
    assert demo.returncode == 0, output
    for text in (
        "EMAIL_TAKEN",
        "committed",
        "visible",
        "ORDER_ALREADY_CANCELLED",
        "SCOPE_MISSING",
        "STATE_CANCELLED",
        "OrderShipped",
        "STOCK_INSUFFICIENT",
        "FUNDS_INSUFFICIENT",
        "IN_REVIEW",
        "WITHDRAWAL_SAME_CALLER",
        "CASE_KIND_STRUCTURING",
        "5000.00 EUR,  1199.40 EUR of it held",
        "equal to the fold",
    ):
        assert text in output
    assert output.endswith("Every step had the expected result\n")


async def test_the_demo_fails_if_a_rejection_does_not_come(
    stack: Stack, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stack.token(*WRITE_SCOPES, "ordering.read", "ordering.all")
    monkeypatch.setattr(stack, "token", lambda *_: token)
    with pytest.raises(UnexpectedResult, match="the call was not rejected"):
        await OrderingDemo(stack, connection, str(uuid4())).run()


async def test_the_demo_fails_if_a_call_fails(
    stack: Stack, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stack.token("ordering.read", "ordering.all")
    monkeypatch.setattr(stack, "token", lambda *_: token)
    with pytest.raises(Rejection, match=r"ordering\.place"):
        await OrderingDemo(stack, connection, str(uuid4())).run()
