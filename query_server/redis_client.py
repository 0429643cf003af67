"""Reads from Redis for all requests of a process, pipelined on one connection.

All calls of a process share one connection (`RedisPipeline`). What a broken connection left without a reply
becomes READ_MODEL_UNAVAILABLE.
"""

import asyncio
from typing import Any

from runtime.grpc.clock_check import check_clock
from runtime.grpc.health import NotReady
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.redis.address import RedisAddress
from runtime.redis.pipeline import PROBE, Command, PipelinedConnection, RedisPipeline

TIMEOUT = 2.0
"""Seconds without a reply to the oldest command after which the connection is closed."""
MAX_WAIT = 0.005
"""Seconds after which a command is sent even while more commands arrive."""
ERRORS_OF_CALLERS = ("ERR", "NOSCRIPT", "EXECABORT", "CROSSSLOT")
"""Prefixes of the errors of a wrong command. All others tell the state of Redis, for example LOADING."""

log = logs.get_logger(__name__)
_unreadable_data = logs.LimitedErrors(log, "Stored data cannot be read")


class RedisClient(RedisPipeline):
    """Sends commands and returns their replies: bytes, int, None, or a list of them.

    Every call raises

        RpcError: `READ_MODEL_UNAVAILABLE`; Redis is unreachable, or did not reply within the timeout.
            `VIEW_UNREADABLE`; the key has another type than the command expects.
        hiredis.ReplyError: Redis rejected the command, which is a bug of the caller.

    Args:
        address: of Redis.
        timeout: seconds, as TIMEOUT.
    """

    def __init__(self, address: RedisAddress, timeout: float = TIMEOUT) -> None:
        super().__init__(address, timeout, MAX_WAIT)

    async def call(self, *command: str | bytes | int) -> Any:
        """Return the reply to one command."""
        return _unwrap(await self._send(command), command)

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Return the replies to several commands, which Redis executes in this order."""
        if not commands:
            return []
        replies = await self._require_connection().send_all(commands)
        if isinstance(replies, Exception):
            raise _unavailable() from replies
        for reply, command in zip(replies, commands, strict=True):
            if isinstance(reply, Exception):
                _unwrap(reply, command)
        return list(replies)

    async def call_behind(self, first: Command, command: Command) -> tuple[Any, Any]:
        """Return the replies to two commands; the first is sent once for all calls that leave together."""
        connection = self._require_connection()
        shared, reply = connection.share(first), connection.send(command)
        result = await reply  # replies come in order, so the shared one is there
        return _unwrap(shared.result(), first), _unwrap(result, command)

    async def read_time(self) -> float:
        """Return Redis's time, in seconds since 1970."""
        seconds, microseconds = await self.call("TIME")
        return int(seconds) + int(microseconds) / 1e6

    async def serves_reads(self) -> bool:
        """Return whether Redis serves reads."""
        try:
            await self.call(*PROBE)
        except RpcError:
            return False
        return True

    async def is_ready(self) -> bool:
        """Return whether Redis serves reads.

        Raises:
            NotReady: Redis serves no reads, or this machine's clock is away from Redis's.
            RpcError: Redis does not reply.
        """
        await check_clock("Redis", self.read_time)
        if not await self.serves_reads():
            raise NotReady("Redis serves no reads")
        return True

    def _send(self, command: Command) -> asyncio.Future[Any]:
        return self._require_connection().send(command)

    def _require_connection(self) -> PipelinedConnection:
        connection = self.get_connection()
        if connection is None:
            raise _unavailable()
        return connection


def _unwrap(reply: Any, command: Command) -> Any:
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith("WRONGTYPE"):
        raise unreadable(str(command[1]), "another type of key") from reply
    if isinstance(reply, ConnectionError) or not str(reply).startswith(ERRORS_OF_CALLERS):
        raise _unavailable() from reply
    raise reply


def unreadable(key: str, fault: str) -> RpcError:
    """Return the error of a read of stored data that cannot be read.

    Args:
        key: in Redis.
        fault: what is in its place, for people.
    """
    _unreadable_data.report(key=key, error=fault)
    return RpcError("VIEW_UNREADABLE", f"stored data cannot be read: {fault}", {"key": key})


def _unavailable() -> RpcError:
    return RpcError("READ_MODEL_UNAVAILABLE", "the read model is unreachable", retry_after=0.2)
