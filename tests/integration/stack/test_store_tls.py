"""PostgreSQL and Redis by TLS: the modes of PostgreSQL, whom clients trust, and renewed certificates."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import text

from devstack.servers.tls_stores import TlsPostgres, TlsRedis, find_redis
from query_server.redis_client import RedisClient
from runtime.postgres import create_engine
from runtime.redis.address import RedisAddress
from runtime.redis.pool import create_pool
from tests.support.harness.authority import Authority
from tests.support.harness.postgres_binaries import find_postgres_binaries
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def foreign(tmp_path: Path) -> Authority:
    (tmp_path / "foreign").mkdir()
    return Authority(tmp_path / "foreign")


@pytest.fixture
async def postgres(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TlsPostgres]:
    monkeypatch.setenv("PG_BIN", str(await find_postgres_binaries()))
    tls = *authority.write("postgresql"), authority.path
    async with TlsPostgres(authority.folder / "postgres", durable=False, tls=tls) as postgres:
        yield postgres


@pytest.fixture
async def redis(authority: Authority) -> AsyncIterator[TlsRedis]:
    program = find_redis()
    assert program is not None, "install Redis with TLS: apt install redis-server"
    tls = *authority.write("redis"), authority.path
    async with TlsRedis(authority.folder / "redis-data", tls=tls, program=program) as redis:
        yield redis


async def ask_postgres(postgres: TlsPostgres, options: str, host: str = "127.0.0.1") -> bool | str:
    """Return whether a connection with these options is encrypted, or the type of its error."""
    url = postgres.url.partition("?")[0].replace("127.0.0.1", host)
    engine = create_engine(f"{url}?{options}")
    try:
        async with engine.connect() as connection:
            query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return bool((await connection.execute(query)).scalar())
    except Exception as error:
        return type(error).__name__
    finally:
        await engine.dispose()


async def test_the_modes_of_postgresql_are_those_of_libpq(
    postgres: TlsPostgres, authority: Authority, foreign: Authority
) -> None:
    ours, other = f"&sslrootcert={authority.path}", f"&sslrootcert={foreign.path}"
    refused = "SSLCertVerificationError"
    expected: dict[str, bool | str] = {
        "sslmode=disable": False,
        "sslmode=allow": False,
        "sslmode=prefer": True,
        "sslmode=require": True,
        f"sslmode=require{ours}": True,
        f"sslmode=require{other}": refused,
        f"sslmode=verify-ca{ours}": True,
        f"sslmode=verify-ca{other}": refused,
        f"sslmode=verify-full{ours}": True,
        f"sslmode=verify-full{other}": refused,
        "sslmode=verify-full&sslrootcert=system": refused,
        "sslmode=verify-full": refused,
    }
    assert {options: await ask_postgres(postgres, options) for options in expected} == expected
    authority.write("postgresql", ("elsewhere.example",))
    postgres.copy_certificate()
    await postgres.stop()
    await postgres.child.start()
    await until(lambda: _is_encrypted(postgres, f"sslmode=verify-ca{ours}"))
    assert await ask_postgres(postgres, f"sslmode=verify-full{ours}") == refused


async def _is_encrypted(postgres: TlsPostgres, options: str) -> bool:
    return await ask_postgres(postgres, options) is True


async def test_renewed_certificates_of_postgresql_are_followed(
    postgres: TlsPostgres, authority: Authority, foreign: Authority
) -> None:
    """Also those of another authority, whose certificate replaces the first one's in the client's file."""
    engine = create_engine(postgres.url)
    async with engine.connect() as kept:
        await kept.execute(text("SELECT 1"))
        for source, target in zip((*foreign.write("postgresql"), foreign.path), postgres.tls, strict=True):
            target.write_bytes(source.read_bytes())
        postgres.copy_certificate()
        await kept.execute(text("SELECT pg_reload_conf()"))
        await until(lambda: _is_encrypted(postgres, f"sslmode=verify-full&sslrootcert={foreign.path}"))
        async with engine.connect() as another:
            await another.execute(text("SELECT 1"))
        await kept.execute(text("SELECT 1"))
    await engine.dispose()


async def test_a_postgresql_without_tls_is_reached_as_far_as_the_mode_permits(
    postgres: TlsPostgres, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TlsPostgres, "_command", lambda self: [*super(TlsPostgres, self)._command()])
    monkeypatch.setattr(TlsPostgres, "options", {})
    await postgres.stop()
    await postgres.start()
    modes = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
    outcomes = {mode: await ask_postgres(postgres, f"sslmode={mode}") for mode in modes}
    assert [mode for mode, outcome in outcomes.items() if outcome is False] == ["disable", "allow", "prefer"]
    assert True not in outcomes.values()


async def test_an_expired_certificate_of_postgresql_is_refused(
    postgres: TlsPostgres, authority: Authority
) -> None:
    authority.write("postgresql", lifetime=timedelta(seconds=-1))
    postgres.copy_certificate()
    engine = create_engine(postgres.url)
    async with engine.connect() as kept:
        await kept.execute(text("SELECT pg_reload_conf()"))
    await engine.dispose()
    options = postgres.url.partition("?")[2]

    async def is_refused() -> bool:
        return await ask_postgres(postgres, options) == "SSLCertVerificationError"

    await until(is_refused)


async def ask_redis(url: str) -> list[str]:
    """Return the answers by a pipelined connection and by a pool: PONG, or the type of the error."""
    answers = []
    async with RedisClient(RedisAddress(url)) as client:
        try:
            answers.append((await client.call("PING")).decode())
        except Exception as error:
            answers.append(type(error).__name__)
    pool = create_pool(url, connections=1, timeout=5)
    async with Redis.from_pool(pool) as pooled:
        try:
            answers.append("PONG" if await pooled.ping() else "")
        except RedisConnectionError as error:
            answers.append(type(error).__name__)
    return answers


async def test_redis_is_reached_by_who_trusts_its_certificate(
    redis: TlsRedis, authority: Authority, foreign: Authority
) -> None:
    assert await ask_redis(redis.url) == ["PONG", "PONG"]
    other = redis.url.replace(str(authority.path), str(foreign.path))
    clear = redis.url.replace("rediss:", "redis:").partition("?")[0]
    for url in (other, clear):
        assert "PONG" not in await ask_redis(url)


async def test_renewed_certificates_of_redis_are_followed(
    redis: TlsRedis, authority: Authority, foreign: Authority
) -> None:
    address = RedisAddress(redis.url)
    async with Redis.from_url(redis.url) as kept, RedisClient(address) as client:
        assert await kept.ping()
        for faulty in ({"hosts": ("elsewhere.example",)}, {"lifetime": timedelta(seconds=-1)}):
            await renew(kept, redis, authority, **faulty)
            assert "PONG" not in await ask_redis(redis.url)
        await renew(kept, redis, foreign)
        assert "PONG" not in await ask_redis(redis.url)
        authority.path.write_bytes(foreign.path.read_bytes())
        assert await ask_redis(redis.url) == ["PONG", "PONG"]
        _, writer = await address.open_streams()  # of the address that was made before
        writer.close()
        assert await client.call("PING") == b"PONG"


async def renew(redis: Any, server: TlsRedis, authority: Authority, **issued: Any) -> None:
    """Let Redis use a new certificate."""
    certificate, key = authority.write("redis", **issued)
    server.tls[0].write_bytes(certificate.read_bytes())
    server.tls[1].write_bytes(key.read_bytes())
    await redis.config_set("tls-cert-file", str(server.tls[0]))
