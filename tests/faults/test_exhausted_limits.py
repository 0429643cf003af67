"""A server takes no more connections, or a process may open no more files: all heals once there is room."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from signal import SIGHUP
from typing import Any

import asyncpg
import grpc
import pytest
from nats.aio.client import Client
from redis.asyncio import Redis

from devstack.processes import Process
from devstack.servers import Nats, Postgres, Server
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER, RELAY, ProcessKind
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.outbox import count_pending
from tests.support.harness.rpc_failure import read_failure, reason_of
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import CONTEXT, installed

pytestmark = pytest.mark.long

LASTS = 2.0
"""Seconds that a limit stays reached."""
PAUSE = 0.3
END_CLIENTS = ("CLIENT", "KILL", "SKIPME", "yes")
END_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name <> 'limits' AND pid <> pg_backend_pid()
"""
MAX_CONNECTIONS = 80
"""Of PostgreSQL, so that few connections fill it."""


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("limits")
    with installed(CONTEXT), pytest.MonkeyPatch.context() as patch:
        _add_options(patch, Postgres, f"--max_connections={MAX_CONNECTIONS}")
        (folder / "nats.conf").touch()
        _add_options(patch, Nats, "--config", str(folder / "nats.conf"))
        async with temporary_stack(folder, contexts=CONTEXT, process_managers=1) as stack:
            yield stack


def _add_options(patch: pytest.MonkeyPatch, server: type[Postgres | Nats], *options: str) -> None:
    command = server._command
    patch.setattr(server, "_command", lambda self: [*command(self), *options])


async def test_postgresql_takes_no_more_connections(stack: Stack, traffic: Traffic, clerk: Clerk) -> None:
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        cheque_id = (await clerk.write(cheque_of("limit"))).aggregate_id
        async with _full_postgres(stack):
            await until(lambda: _is_refused(clerk, "TOO_MANY_CONNECTIONS"))
            assert (await clerk.get(cheque_id)).cheque_id == cheque_id
            await _stay()
        await traffic.more(30)
    assert "too many clients" in _read_log(stack, COMMAND_SERVER)
    await _assert_healed(stack, traffic)


async def test_nats_takes_no_more_connections(stack: Stack, traffic: Traffic) -> None:
    nats = stack.servers["nats_url"]
    config = nats.folder.parent / "nats.conf"
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        config.write_text("max_connections: 1\n")
        async with _only_connection(nats):
            await until(lambda: _has_pending(stack))
            await stack.of(RELAY)[0].child.kill()  # the next one begins while NATS takes no connections
            await stack.of(RELAY)[0].child.start()
            await traffic.more(30)
            await _stay()
            config.write_text("")
            os.kill(nats.child.process.pid, SIGHUP)
        await traffic.more(30)
    assert "NATS unreachable" in _read_log(stack, RELAY)
    assert "maximum connections exceeded" in nats.log.read_text()
    await _assert_healed(stack, traffic)


async def test_redis_takes_no_more_connections(stack: Stack, traffic: Traffic, clerk: Clerk) -> None:
    async with traffic.flowing(PAUSE), AsyncExitStack() as held:
        await traffic.more(30)
        redis = await held.enter_async_context(Redis.from_url(stack.settings.redis_url))
        limit = str((await redis.config_get("maxclients"))["maxclients"])
        await redis.config_set("maxclients", 1)
        await redis.execute_command(*END_CLIENTS)  # type: ignore[no-untyped-call]
        receipt = await clerk.write(cheque_of("limit"))
        await until(lambda: _has_reason(clerk.get(receipt.aggregate_id), "READ_MODEL_UNAVAILABLE"))
        await traffic.more(30)
        await _stay()
        await redis.config_set("maxclients", limit)
        await traffic.more(30)
    log = _read_log(stack, QUERY_SERVER)
    assert "max number of clients" in log
    assert "Traceback" not in log
    await _assert_healed(stack, traffic)


async def test_a_process_may_open_no_more_files(stack: Stack, traffic: Traffic, clerk: Clerk) -> None:
    async with traffic.flowing(PAUSE):
        await traffic.more(30)
        await clerk.write(cheque_of("limit"))  # a new connection would wait for its acceptance
        with ExitStack() as limits:
            for process in stack.processes:
                limits.enter_context(_no_new_files(process))
            await _end_connections(stack)
            await until(lambda: _is_refused(clerk, "TOO_MANY_OPEN_FILES"))
            await _stay()
        await traffic.more(30)
    assert "Too many open files" in _read_log(stack, COMMAND_SERVER)
    await _assert_healed(stack, traffic)


@asynccontextmanager
async def _full_postgres(stack: Stack) -> AsyncIterator[None]:
    """Take all connections of PostgreSQL, also those of the stack's processes."""
    async with AsyncExitStack() as held:
        first = await _connect(stack)
        held.push_async_callback(first.close)

        async def take() -> None:
            while True:
                with suppress(asyncpg.TooManyConnectionsError):
                    held.push_async_callback((await _connect(stack)).close)
                    continue
                await first.execute(END_BACKENDS)

        taker = asyncio.create_task(take())
        try:
            yield
        finally:
            taker.cancel()
            await asyncio.wait({taker})


async def _connect(stack: Stack) -> "asyncpg.Connection[asyncpg.Record]":
    settings = {"application_name": "limits"}
    return await asyncpg.connect(stack.settings.database_url, server_settings=settings)


@asynccontextmanager
async def _only_connection(server: Server) -> AsyncIterator[None]:
    """Restart NATS and take the only connection that its configuration allows."""
    while True:
        await server.child.kill()
        client = Client()
        options: Any = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.01}
        connecting = asyncio.create_task(client.connect(server.url, **options))
        await server.start()
        await asyncio.wait({connecting}, timeout=2)
        if client.is_connected:
            break
        connecting.cancel()  # another client was faster
        await client.close()
    try:
        yield
    finally:
        await client.close()


@contextmanager
def _no_new_files(process: Process) -> Iterator[None]:
    """Have a process open no more files than it has open."""
    pid = process.child.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


async def _end_connections(stack: Stack) -> None:
    """End the connections of all processes to PostgreSQL, NATS and Redis."""
    connection = await _connect(stack)
    await connection.execute(END_BACKENDS)
    await connection.close()
    async with Redis.from_url(stack.settings.redis_url) as redis:
        await redis.execute_command(*END_CLIENTS)  # type: ignore[no-untyped-call]
    await stack.servers["nats_url"].child.kill()
    await stack.servers["nats_url"].start()


async def _stay() -> None:
    await asyncio.sleep(LASTS)  # the length of the fault, not a wait for anything


async def _is_refused(clerk: Clerk, cause: str) -> bool:
    try:
        await clerk.write(cheque_of("limit"))
    except grpc.aio.AioRpcError as error:
        failure = read_failure(error)
        return (failure.reason, failure.metadata.get("cause")) == ("WRITE_MODEL_UNAVAILABLE", cause)
    return False


async def _has_reason(call: Awaitable[object], reason: str) -> bool:
    """Return whether a call fails for this reason."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error) == reason
    return False


async def _has_pending(stack: Stack) -> bool:
    return await count_pending(stack) > 20


def _read_log(stack: Stack, kind: ProcessKind) -> str:
    folder = stack.servers["nats_url"].folder.parent
    return "".join((folder / f"{process.name}.log").read_text() for process in stack.of(kind))


async def _assert_healed(stack: Stack, traffic: Traffic) -> None:
    assert all(process.child.running for process in stack.processes)
    for process in stack.processes:
        await process.wait_serving()
    await assert_consistent(stack, traffic.answers)
