"""Waiting until a projection includes what a consistency token names.

A token names streams and versions. Of each stream that the projection hears, its view's hash tells which
version the view has, and with it everything that is derived from the view.
"""

import asyncio
from typing import Any

from contracts import streams
from query_server.reader import Command
from query_server.view_reader import ViewReader
from runtime.backoff import Backoff
from runtime.grpc.request_tokens import read_consistency_token
from runtime.grpc.rpc_error import RpcError

RESERVE = 0.05
"""Seconds before the deadline at which waiting ends, so that the refusal still reaches the caller."""
WITHOUT_DEADLINE = 2.0
"""Seconds that a call without a deadline waits."""
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02
"""Seconds between two looks."""


async def read(
    views: ViewReader,
    token: str,
    *commands: Command,
    remaining: float | None = None,
) -> list[Any]:
    """Return the replies to commands, read once the projection includes what a token names.

    The commands go in one round trip with the look at the versions, behind it, so that nothing can be lost
    in between.

    Args:
        views: the projection that is read.
        token: the consistency token.
        commands: what to read.
        remaining: seconds until the call's deadline; None where it has none.

    Raises:
        Refusal: `TOKEN_INVALID`; `TOKEN_OUTDATED`, it is from before the database was restored;
            `VIEW_REBUILDING`, the projection follows an earlier life of the database than the token's;
            `VIEW_BEHIND`, it did not get there in time; and whatever `ViewReader` raises.
    """
    known = read_consistency_token(token)
    heard = [s for s in known.streams if streams.stream_type(s.stream) in views.view.source_streams]
    looks = [views.version_of(streams.aggregate_id(stream.stream)) for stream in heard]
    deadline = _now() + (WITHOUT_DEADLINE if remaining is None else remaining - RESERVE)
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    while True:
        incarnation, replies = await views.complete(*looks, *commands)
        if incarnation < known.incarnation:  # the projectors have yet to follow a restored database
            raise views.rebuilding()
        if incarnation > known.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token is from before the database was restored")
        if all(int(at or 0) >= stream.version for at, stream in zip(replies, heard, strict=False)):
            return replies[len(heard) :]
        if _now() >= deadline:
            raise RpcError(
                "VIEW_BEHIND", "the view does not include the token's command yet", retry_after=0.1
            )
        await asyncio.sleep(min(backoff.next_pause(), max(deadline - _now(), 0)))


async def view(views: ViewReader, view_id: str, token: str, remaining: float | None) -> bytes | None:
    """Return a serialised view, or None where there certainly is none.

    Args:
        views: the projection that is read.
        view_id: the view's.
        token: the consistency token that the view has to include; empty for none.
        remaining: seconds until the call's deadline; None where it has none.

    Raises:
        Refusal: as `read` does.
    """
    if not token:
        return await views.get(view_id)
    (data,) = await read(views, token, views.data_of(view_id), remaining=remaining)
    return data or None


def _now() -> float:
    return asyncio.get_running_loop().time()
