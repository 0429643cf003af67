"""PostgreSQL raises an error of every class while it writes a command: the answers to it and to others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from diptych_client import Rejection

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER
from tests.support.harness.invariants import assert_answers_recorded, verify_stack
from tests.support.harness.rpc_failure import rpc_failure
from tests.support.harness.traffic import Traffic
from tests.support.ledger.clerk import cheque_of
from tests.support.ledger.stubs import commands_grpc

PASSING = {
    "08000": "WRITE_MODEL_UNAVAILABLE",
    "08006": "WRITE_MODEL_UNAVAILABLE",
    "25006": "WRITE_MODEL_UNAVAILABLE",
    "25P02": "WRITE_MODEL_UNAVAILABLE",
    "25P04": "WRITE_MODEL_UNAVAILABLE",
    "26000": "WRITE_MODEL_UNAVAILABLE",
    "28000": "WRITE_MODEL_UNAVAILABLE",
    "28P01": "WRITE_MODEL_UNAVAILABLE",
    "3D000": "WRITE_MODEL_UNAVAILABLE",
    "3F000": "WRITE_MODEL_UNAVAILABLE",
    "40001": "WRITE_MODEL_UNAVAILABLE",
    "40003": "WRITE_MODEL_UNAVAILABLE",
    "40P01": "WRITE_MODEL_UNAVAILABLE",
    "42501": "WRITE_MODEL_UNAVAILABLE",
    "42703": "WRITE_MODEL_UNAVAILABLE",
    "42P01": "WRITE_MODEL_UNAVAILABLE",
    "53000": "STORAGE_FULL",
    "53100": "STORAGE_FULL",
    "53200": "STORAGE_FULL",
    "53300": "WRITE_MODEL_UNAVAILABLE",
    "53400": "STORAGE_FULL",
    "55000": "WRITE_MODEL_UNAVAILABLE",
    "55006": "WRITE_MODEL_UNAVAILABLE",
    "55P03": "WRITE_MODEL_LOCKED",
    "57000": "WRITE_MODEL_UNAVAILABLE",
    "57014": "WRITE_MODEL_UNAVAILABLE",
    "57P01": "WRITE_MODEL_UNAVAILABLE",
    "57P03": "WRITE_MODEL_UNAVAILABLE",
    "58000": "WRITE_MODEL_UNAVAILABLE",
    "58030": "WRITE_MODEL_UNAVAILABLE",
    "72000": "WRITE_MODEL_UNAVAILABLE",
    "XX000": "WRITE_MODEL_UNAVAILABLE",
    "XX001": "WRITE_MODEL_UNAVAILABLE",
    "XX002": "WRITE_MODEL_UNAVAILABLE",
}
"""SQLSTATE -> reason; each UNAVAILABLE with a delay."""
OURS = ("0A000", "22003", "22P05", "23514", "42601", "42804", "54000", "P0001")
"""Errors of a statement or its data, which would occur again."""
TRIGGER = """
CREATE FUNCTION raise_sqlstate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'planted' USING ERRCODE = split_part(NEW.caller, '-', 2);
END $$;
CREATE TRIGGER raise_sqlstate BEFORE INSERT ON requests
FOR EACH ROW WHEN (NEW.caller LIKE 'sqlstate-%') EXECUTE FUNCTION raise_sqlstate()
"""
CHANGE = "ALTER TABLE streams ALTER COLUMN fingerprint TYPE {type}"
"""Changes the result of the statement that reads streams, whose plan every connection has cached."""


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(stack.settings.database_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def trigger(database: "asyncpg.Connection[Any]") -> AsyncIterator[None]:
    """Raise the error that the second part of a caller's name is."""
    await database.execute(TRIGGER)
    try:
        yield
    finally:
        await database.execute("DROP TRIGGER raise_sqlstate ON requests; DROP FUNCTION raise_sqlstate()")


async def send_failing(stack: Stack, state: str) -> Rejection:
    """Return the answer to a command during whose write PostgreSQL raises an error."""
    server, _ = stack.of(COMMAND_SERVER)
    token = stack.token("ledger.write", subject=f"sqlstate-{state}")
    async with grpc.aio.insecure_channel(server.address) as channel:
        send: Any = commands_grpc.CommandServiceStub(channel).WriteCheque
        metadata = (("authorization", f"Bearer {token}"),)
        return await rpc_failure(send(cheque_of("a"), metadata=metadata, timeout=20))


async def test_only_errors_of_our_statements_are_internal(
    stack: Stack, traffic: Traffic, database: "asyncpg.Connection[Any]"
) -> None:
    failures: dict[str, Rejection] = {}
    async with traffic.flowing(), trigger(database):
        for state in (*PASSING, *OURS):
            failures[state] = await send_failing(stack, state)
        await traffic.more(20)
    for state, reason in PASSING.items():
        failure = failures[state]
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, reason), (state, failure)
        assert failure.retry_after, state
    for state in OURS:
        assert failures[state].reason == "INTERNAL", state
    await assert_answers_recorded(stack, traffic.answers)
    assert (await verify_stack(stack)).clean


async def test_plans_of_before_a_migration_are_made_again(
    stack: Stack, traffic: Traffic, database: "asyncpg.Connection[Any]"
) -> None:
    async with traffic.flowing(pause=0.01):
        await traffic.more(50)
        for type_ in ("varchar", "text"):
            await database.execute(CHANGE.format(type=type_))
            await traffic.more(50)
    assert traffic.answers.accepted
    await assert_answers_recorded(stack, traffic.answers)
    assert (await verify_stack(stack)).clean
