"""The projector's connection to Redis, and the checks on it."""

import builtins
from collections.abc import Sequence
from functools import partial
from hashlib import sha1
from typing import Any, Self, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError  # noqa: A004 - redis-py's names

from projector import clock
from runtime.grpc.clock_check import check_clock
from runtime.process import logs
from runtime.process.lifecycle import Lifecycle
from runtime.process.start_error import StartError
from runtime.redis.address import parse_address
from runtime.redis.pipeline import RedisPipeline
from runtime.redis.pool import create_pool

CONNECTIONS = 4
TIMEOUT = 5.0
"""Seconds to wait for a free connection, and for each reply of Redis."""
RETRY_INTERVAL = 0.25
"""Seconds between two attempts to reach Redis."""

log = logs.get_logger(__name__)


class ScriptedRedis(Redis):
    """redis-py's client, whose scripts run on a connection of their own, pipelined.

    With the pool a script costs five times as much. Commands that are not scripts are rare here.
    """

    pipelined: RedisPipeline

    async def __aenter__(self) -> Self:
        await self.pipelined.__aenter__()
        return await super().__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()
        await self.pipelined.__aexit__()

    def register_script(self, script: Any) -> Any:
        """Return a function that runs a script: `script(keys=(), args=())`."""
        return partial(self._run_script, str(script), sha1(str(script).encode()).hexdigest())  # noqa: S324

    async def _run_script(
        self, text: str, digest: str, keys: Sequence[Any] = (), args: Sequence[Any] = ()
    ) -> Any:
        reply = await self._send("EVALSHA", digest, len(keys), *keys, *args)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await self._send("EVAL", text, len(keys), *keys, *args)
        if isinstance(reply, builtins.ConnectionError):
            raise ConnectionError(str(reply))
        if isinstance(reply, Exception):
            raise ResponseError(str(reply))
        return reply

    async def _send(self, *command: Any) -> Any:
        connection = self.pipelined.get_connection()
        if connection is None:
            raise ConnectionError("Redis is unreachable")
        return await connection.send(command)


def connect(url: str) -> ScriptedRedis:
    """Return a client; its context connects it.

    Raises:
        InvalidSetting: the URL is not a Redis URL.
    """
    pool = create_pool(url, connections=CONNECTIONS, timeout=TIMEOUT)
    redis = cast(ScriptedRedis, ScriptedRedis.from_pool(pool))
    redis.pipelined = RedisPipeline(parse_address(url), TIMEOUT, max_wait=0)
    return redis


async def prepare(redis: Redis, lifecycle: Lifecycle) -> None:
    """Wait for Redis, set the clock, and check that Redis does not evict views when memory is short.

    Raises:
        StartError: its maxmemory-policy is not noeviction.
    """
    failures = logs.RepeatedErrors(log, "Redis unreachable")
    while True:
        try:
            await read_time(redis)
            await _check_policy(redis)
            failures.reset()
            return
        except (ConnectionError, TimeoutError, OSError) as error:
            failures.report(error)
        if await lifecycle.wait(RETRY_INTERVAL):
            return


async def _check_policy(redis: Redis) -> None:
    try:
        policy = (await redis.config_get("maxmemory-policy")).get("maxmemory-policy")
    except ResponseError as error:  # managed servers forbid CONFIG
        log.warning("Redis forbids CONFIG GET; its maxmemory-policy must be noeviction", error=str(error))
        return
    if policy != "noeviction":
        raise StartError(f"Redis must run with maxmemory-policy noeviction, not {policy}")


async def is_ready(redis: Redis) -> bool:
    """Return whether Redis replies, and set the projector's clock.

    Raises:
        NotReady: this machine's clock is away from Redis's.
        RedisError, OSError: Redis does not reply.
    """
    await check_clock("Redis", lambda: read_time(redis))
    return bool(await redis.ping())  # which a Redis that takes no writes refuses


async def read_time(redis: Redis) -> float:
    """Return Redis's time in seconds since 1970, and set the projector's clock to it."""
    seconds, microseconds = await redis.time()
    clock.set_time(now := seconds + microseconds / 1e6)
    return now
