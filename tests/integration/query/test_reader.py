"""RedisClient: pipelined reads on one connection, in order, cheap, and correct when the connection fails."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from query_server.redis_client import RedisClient
from runtime.grpc.rpc_error import RpcError
from runtime.redis.address import RedisAddress
from runtime.telemetry.metrics import CONNECTIONS_LOST
from tests.support.harness.certificates import write_certificate
from tests.support.harness.tcp_proxy import TcpProxy
from tests.support.harness.waiting import until

TIMEOUT = 0.4
"""Seconds without a reply after which the readers under test close a connection."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def reader(redis: Redis, redis_url: str) -> AsyncIterator[RedisClient]:
    async with make_reader(redis_url) as reader:
        yield reader


async def is_blocked(redis: Redis) -> bool:
    return bool((await redis.info("clients"))["blocked_clients"])


def parse_port(url: str) -> int:
    return urlsplit(url).port or 6379


def make_reader(url: str) -> RedisClient:
    return RedisClient(RedisAddress(url), TIMEOUT)


async def test_replies_come_in_the_order_of_their_commands(reader: RedisClient, redis: Redis) -> None:
    await redis.mset({f"k{n}": f"v{n}" for n in range(1000)})
    replies = await asyncio.gather(*(reader.call("GET", f"k{n}") for n in range(1000)))
    assert replies == [f"v{n}".encode() for n in range(1000)]


async def test_concurrent_reads_share_a_connection_and_few_round_trips(
    reader: RedisClient, redis: Redis
) -> None:
    before = (await redis.info("stats"))["total_reads_processed"]
    await asyncio.gather(*(reader.call("GET", f"k{n}") for n in range(500)))
    assert (await redis.info("stats"))["total_reads_processed"] - before < 20


async def test_a_pipeline_returns_every_reply(reader: RedisClient, redis: Redis) -> None:
    await redis.hset("h", mapping={"a": "1", "b": "2"})
    commands = [("HGET", "h", "a"), ("HMGET", "h", "a", "x"), ("EXISTS", "nothing"), ("HGET", "h", "b")]
    assert await reader.pipeline(*commands) == [b"1", [b"1", None], 0, b"2"]
    assert await reader.pipeline() == []


async def test_reads_that_leave_together_share_the_read_before_them(
    reader: RedisClient, redis: Redis
) -> None:
    await redis.mset({"first": "f", "a": "1", "b": "2"})
    await redis.config_resetstat()
    reads = [asyncio.create_task(reader.call_behind(("GET", "first"), ("GET", key))) for key in "abab"]
    await asyncio.sleep(0)
    reads[0].cancel()
    assert await asyncio.gather(*reads[1:]) == [(b"f", b"2"), (b"f", b"1"), (b"f", b"2")]
    assert (await redis.info("commandstats"))["cmdstat_get"]["calls"] == 5
    await redis.set("first", "g")
    assert await reader.call_behind(("GET", "first"), ("GET", "a")) == (b"g", b"1")


async def test_a_cancelled_read_does_not_shift_the_replies_of_others(
    reader: RedisClient, redis: Redis
) -> None:
    await redis.mset({"a": "1", "b": "2"})
    cancelled = asyncio.create_task(reader.call("GET", "a"))
    other = asyncio.create_task(reader.call("GET", "b"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await other == b"2"
    assert cancelled.cancelled()


async def test_a_rejected_command_is_not_an_unreachable_redis(reader: RedisClient, redis: Redis) -> None:
    await redis.set("text", "x")
    with pytest.raises(RpcError, match="another type of key"):
        await reader.call("HGET", "text", "field")
    assert await reader.serves_reads()


async def test_a_killed_connection_fails_pending_reads_and_recovers(
    reader: RedisClient, redis: Redis
) -> None:
    CONNECTIONS_LOST.clear()
    client_id = await reader.call("CLIENT", "ID")
    waiting = asyncio.create_task(reader.call("BLPOP", "nothing", 0))
    await until(lambda: is_blocked(redis))
    await redis.client_kill_filter(_id=str(client_id))
    async with asyncio.timeout(TIMEOUT / 4):
        with pytest.raises(RpcError) as error:
            await waiting
    assert error.value.reason == "READ_MODEL_UNAVAILABLE"
    await until(reader.serves_reads)
    assert await reader.call("CLIENT", "ID") > client_id
    assert CONNECTIONS_LOST.sums == {("Redis",): 1}


async def test_a_hanging_redis_unavailable_in_time_and_recovers(redis_url: str, redis: Redis) -> None:
    async with (
        TcpProxy(parse_port(redis_url)) as proxy,
        make_reader(f"redis://127.0.0.1:{proxy.port}") as reader,
    ):
        proxy.flowing.clear()
        async with asyncio.timeout(2 * TIMEOUT):
            with pytest.raises(RpcError) as error:
                await reader.call("GET", "a")
        assert error.value.reason == "READ_MODEL_UNAVAILABLE"
        with pytest.raises(RpcError):  # later calls fail at once
            await asyncio.wait_for(reader.call("GET", "a"), 0.05)
        proxy.flowing.set()
        await until(reader.serves_reads)


async def test_a_long_queue_is_not_a_hanging_redis(reader: RedisClient, redis: Redis) -> None:
    end = asyncio.get_running_loop().time() + 1.0  # far longer than the timeout

    async def keep_reading() -> None:
        while asyncio.get_running_loop().time() < end:
            await reader.call("GET", "a")

    await asyncio.gather(*(keep_reading() for _ in range(3)))


async def test_a_redis_that_starts_later_is_connected(redis_url: str, redis: Redis) -> None:
    proxy = TcpProxy(parse_port(redis_url))
    async with proxy:
        pass  # the port is free again
    async with make_reader(f"redis://127.0.0.1:{proxy.port}") as reader:
        assert not await reader.serves_reads()
        async with proxy:
            await until(reader.serves_reads)
        await until(lambda: _negate(reader.serves_reads()))
        async with proxy:
            await until(reader.serves_reads)


async def _negate(answer: Awaitable[bool]) -> bool:
    return not await answer


async def test_the_address_contains_user_password_and_database(redis_url: str, redis: Redis) -> None:
    await redis.acl_setuser("reader", enabled=True, passwords=["+se/cret"], keys=["*"], commands=["+@all"])
    host = urlsplit(redis_url).netloc
    await redis.set("database", "0")
    async with make_reader(f"redis://reader:se%2Fcret@{host}/3") as reader:
        assert await reader.call("ACL", "WHOAMI") == b"reader"
        assert await reader.call("GET", "database") is None
    await redis.acl_deluser("reader")


async def test_a_wrong_password_is_an_unreachable_redis(redis_url: str, redis: Redis) -> None:
    async with make_reader(f"redis://nobody:wrong@{urlsplit(redis_url).netloc}") as reader:
        denials = (await redis.info("stats"))["acl_access_denied_auth"]
        await until(lambda: _has_new_denial(redis, denials))
        assert not await reader.serves_reads()


async def _has_new_denial(redis: Redis, previous: int) -> bool:
    return int((await redis.info("stats"))["acl_access_denied_auth"]) > previous


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "redis.pem")


async def test_tls_is_used_and_the_certificate_is_checked(
    redis_url: str, redis: Redis, certificate: Path
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with TcpProxy(parse_port(redis_url), tls) as proxy:
        url = f"rediss://localhost:{proxy.port}/0"
        async with make_reader(f"{url}?ssl_ca_certs={certificate}") as reader:
            assert await reader.serves_reads()
        with pytest.raises(ssl.SSLCertVerificationError):
            await RedisAddress(url).connect(asyncio.Protocol)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "unix:///redis.sock", "127.0.0.1:6379"])
def test_an_address_of_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis://"):
        RedisAddress(url)
