"""What each user of Redis may do, asked of a server with the users of `diptych provision redis`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from redis.asyncio import Redis

from devstack.servers import Valkey
from operations.provision.redis import ADMINISTRATOR, RIGHTS, password_file, provision
from runtime.process.start_error import InvalidSetting
from runtime.redis.address import parse_address
from runtime.redis.pool import open_client

WRITERS = {"projector", "operations_server", "housekeeping"}
PROCESSES = set(RIGHTS) - {ADMINISTRATOR}
REPORTERS = {"projector", "query_server", "operations_server"}

MAY = {
    "HSET view:ordering.order:2:{o-1} data x": WRITERS,
    "UNLINK view:ordering.order:2:{o-1}": WRITERS,
    "ZADD index:ordering.order:2:{of_customer/c-1} 1 o-1": WRITERS,
    "HINCRBY counters:ordering.order:2:{placed} a 1": WRITERS,
    "ZADD change_feed:banking.account:2:{all} 1 a-1": WRITERS,
    "ZADD history:ordering.order:2:{o-1} 1 x": WRITERS,
    "SET build:ordering.order:2 x": WRITERS,
    "HSET checkpoints:ordering.order:2 0 epoch/1": WRITERS,
    "SET serving:ordering.order 3": {"projector", "operations_server"},
    "HSET skips:ordering.order a.b.c@1 x": {"projector", "operations_server"},
    "SET lease:ordering:1 x": {"projector"},
    "HSET process_reports p x": REPORTERS,
    "SET anything x": set(),
    "PUBLISH changes:ordering.order:2 x": WRITERS,
    "PUBLISH other x": set(),
    "PSUBSCRIBE changes:ordering.order:*": {"query_server"},
    "HGETALL view:ordering.order:2:{o-1}": PROCESSES,
    "ZRANGE index:ordering.order:2:{of_customer/c-1} 0 -1": PROCESSES,
    "SCAN 0": PROCESSES,
    "TIME": PROCESSES,
    "EVAL return 0 0": PROCESSES,
    "KEYS *": set(),
    "FLUSHALL": set(),
    "FLUSHDB": set(),
    "CONFIG SET maxmemory 1": set(),
    "CONFIG GET maxmemory-policy": WRITERS,
    "ACL LIST": set(),
    "ACL SETUSER x": set(),
    "SCRIPT FLUSH": set(),
    "FUNCTION FLUSH": set(),
    "DEBUG SLEEP 1": set(),
    "SHUTDOWN": set(),
    "REPLICAOF a 1": set(),
    "MIGRATE a 1 k 0 1": set(),
    "RESTORE view:ordering.order:2:{o-1} 0 x": set(),
    "CLIENT KILL a": set(),
    "MONITOR": set(),
    "SAVE": set(),
}
"""Command to the users that may use it, besides the administrator."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(tmp_path / "redis", persistent=False, users=provision(tmp_path / "users"))
    await server.start()
    yield server
    await server.stop()


def url_of(server: Valkey, folder: Path, user: str) -> str:
    return f"redis://{user}@127.0.0.1:{server.port}/0?password_file={password_file(folder, user)}"


async def ask(client: Any, *command: str) -> Any:
    return await client.execute_command(*command)


async def test_each_user_may_do_what_its_process_does(server: Valkey, tmp_path: Path) -> None:
    async with open_client(url_of(server, tmp_path / "users", ADMINISTRATOR)) as client:
        for command, users in MAY.items():
            arguments = command.split() if not command.startswith("EVAL") else ["EVAL", "return 0", "0"]
            replies = {user: await ask(client, "ACL DRYRUN", user, *arguments) for user in PROCESSES}
            assert {user for user, reply in replies.items() if reply == b"OK"} == users, command


async def test_a_script_of_a_query_server_writes_no_view(server: Valkey, tmp_path: Path) -> None:
    async with open_client(url_of(server, tmp_path / "users", "query_server")) as client:
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
            await client.eval("return redis.call('HSET', KEYS[1], 'data', 'x')", 1, "view:a.b:2:{c}")
        assert await client.exists("view:a.b:2:{c}") == 0


async def test_nobody_connects_without_a_password(server: Valkey) -> None:
    async with Redis(port=server.port) as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await client.ping()


async def test_a_new_password_counts_without_a_restart(server: Valkey, tmp_path: Path) -> None:
    folder = tmp_path / "users"
    address = parse_address(url_of(server, folder, "projector"))
    async with open_client(url_of(server, folder, ADMINISTRATOR)) as client:
        await client.ping()
        before = address.handshake
        provision(folder, rotate=True)
        await ask(client, "ACL LOAD")
    assert address.handshake != before
    async with open_client(url_of(server, folder, "projector")) as client:
        assert await client.ping()


@pytest.mark.parametrize("url", ["redis://a:b@host?password_file=x", "redis://a@host?password_file=/missing"])
def test_a_password_file_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="DIPTYCH_REDIS_URL"):
        parse_address(url)
    with pytest.raises(InvalidSetting, match="DIPTYCH_REDIS_URL"):
        open_client(url)
