"""Waiting until sagas of a kind have heard what a consistency token names."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from contracts import streams
from process_manager.saga import Saga
from process_manager.saga_reader import SagaReader
from runtime.grpc.request_tokens import read_consistency_token
from runtime.grpc.rpc_error import RpcError

RESERVE = 0.05
"""Seconds before the deadline at which waiting ends, so that the refusal still reaches the caller."""
WITHOUT_DEADLINE = 2.0
"""Seconds that a call without a deadline waits."""
PAUSE = 0.02
"""Seconds between two looks."""

Incarnation = Callable[[], Awaitable[str]]
"""Returns the database's whose events the stream holds; empty where there is no stream."""


class Freshness:
    """Makes queries wait.

    Args:
        sagas: reads how far they have heard.
        incarnation: see there.
    """

    def __init__(self, sagas: SagaReader, incarnation: Incarnation) -> None:
        self._sagas = sagas
        self._incarnation = incarnation

    async def reached(self, saga: Saga[Any], token: str, remaining: float | None) -> None:
        """Return once sagas of a kind have heard what a token names of the streams that they follow.

        Args:
            saga: the kind.
            token: a consistency token; empty for none.
            remaining: seconds until the call's deadline; None where it has none.

        Raises:
            Refusal: `TOKEN_INVALID`; `TOKEN_OUTDATED`, it is from before the database was restored;
                `VIEW_REBUILDING`, the stream is of an earlier life of the database than the token;
                `VIEW_BEHIND`, it was not heard in time.
        """
        if not token:
            return
        known = read_consistency_token(token)
        incarnation = await self._incarnation()
        if incarnation < known.incarnation:
            raise RpcError("VIEW_REBUILDING", "the stream is being filled", retry_after=1.0)
        if incarnation > known.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token is from before the database was restored")
        awaited = {
            streams.aggregate_id(one.stream): one.version
            for one in known.streams
            if streams.stream_type(one.stream) == saga.subscribes_to
        }
        clock = asyncio.get_running_loop().time
        ends = clock() + (WITHOUT_DEADLINE if remaining is None else remaining - RESERVE)
        while awaited:
            heard = await self._sagas.versions(saga.name, list(awaited))
            if all(heard.get(id_, 0) >= version for id_, version in awaited.items()):
                return
            if clock() >= ends:
                raise RpcError("VIEW_BEHIND", "the token's command was not heard yet", retry_after=0.1)
            await asyncio.sleep(min(PAUSE, max(ends - clock(), 0)))
