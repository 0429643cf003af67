"""Waits until sagas have processed the events that a consistency token names."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from contracts import streams
from process_manager.saga import Saga
from process_manager.saga_reader import SagaReader
from runtime.grpc.request_tokens import read_consistency_token
from runtime.grpc.rpc_error import RpcError

DEADLINE_MARGIN = 0.05
"""Seconds before the call's deadline at which waiting ends, so that the error still reaches the caller."""
DEFAULT_TIMEOUT = 2.0
"""Maximum wait of a call without a deadline, in seconds."""
CHECK_INTERVAL = 0.02
"""Seconds between two checks."""

ReadIncarnation = Callable[[], Awaitable[str]]
"""Returns the database incarnation whose events the stream contains; empty if there is no stream."""


class Freshness:
    """Delays queries until the sagas are up to date.

    Args:
        sagas: reads the versions that the sagas have processed.
        read_incarnation: reads the incarnation of the stream.
    """

    def __init__(self, sagas: SagaReader, read_incarnation: ReadIncarnation) -> None:
        self._sagas = sagas
        self._read_incarnation = read_incarnation

    async def wait_for(self, saga: Saga[Any], token: str, remaining: float | None) -> None:
        """Wait until a saga has processed the token's versions of the streams to which it subscribes.

        Args:
            saga: the saga.
            token: the consistency token; empty for none.
            remaining: seconds until the call's deadline; None without a deadline.

        Raises:
            RpcError: `TOKEN_INVALID`; `TOKEN_OUTDATED` if the database was restored after it issued it;
                `VIEW_REBUILDING` if the stream still belongs to an earlier incarnation than the token;
                `VIEW_BEHIND` if time ran out.
        """
        if not token:
            return
        content = read_consistency_token(token)
        incarnation = await self._read_incarnation()
        if incarnation < content.incarnation:
            raise RpcError("VIEW_REBUILDING", "the event stream is being rebuilt", retry_after=1.0)
        if incarnation > content.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token was issued before the database was restored")
        required = {
            streams.aggregate_id(stream.stream): stream.version
            for stream in content.streams
            if streams.stream_type(stream.stream) == saga.subscribes_to
        }
        clock = asyncio.get_running_loop().time
        deadline = clock() + (DEFAULT_TIMEOUT if remaining is None else remaining - DEADLINE_MARGIN)
        while required:
            versions = await self._sagas.read_versions(saga.name, list(required))
            if all(versions.get(id_, 0) >= version for id_, version in required.items()):
                return
            if clock() >= deadline:
                raise RpcError(
                    "VIEW_BEHIND", "the sagas have not processed the token's command yet", retry_after=0.1
                )
            await asyncio.sleep(min(CHECK_INTERVAL, max(deadline - clock(), 0)))
