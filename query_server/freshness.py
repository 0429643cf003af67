"""Waits until a projection includes the writes that a consistency token names.

How it works. A token names streams and their versions. Of these, only the streams that the projection
consumes matter; each belongs to a view whose hash stores the version that it includes. One pipeline reads
those versions first and the requested data behind them, so the data is at least as new as the versions.
While a version is too low, the pipeline is repeated with backoff until shortly before the call's deadline.
The caught-up marker names the incarnation of the database that the projection follows; a token of another
one cannot be satisfied.
"""

import asyncio
from typing import Any

from contracts import streams
from query_server.redis_client import Command
from query_server.view_reader import ViewReader
from runtime.backoff import Backoff
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError

DEADLINE_MARGIN = 0.05
"""Seconds before the deadline at which waiting ends, so that the error still reaches the caller."""
DEFAULT_TIMEOUT = 2.0
"""Seconds that a call without a deadline waits."""
INITIAL_PAUSE, MAX_PAUSE = 0.001, 0.02
"""Seconds between two reads of the versions."""


async def read(
    views: ViewReader,
    tokens: RequestTokens,
    token: str,
    *commands: Command,
    remaining: float | None = None,
) -> list[Any]:
    """Return replies that include the writes of a consistency token.

    Args:
        views: the projection.
        tokens: decodes the token.
        token: the consistency token.
        commands: the reads.
        remaining: seconds until the call's deadline; None if it has none.

    Raises:
        RpcError: `TOKEN_INVALID`; `TOKEN_OUTDATED`, the database was restored after the token was issued;
            `VIEW_REBUILDING`, the projection follows an earlier incarnation of the database than the token;
            `VIEW_BEHIND`, the writes were not included in time; and the errors of `ViewReader`.
    """
    decoded_token = tokens.read_consistency_token(token)
    required_versions = [
        required
        for required in decoded_token.streams
        if streams.stream_type(required.stream) in views.view.source_streams
    ]
    version_reads = [
        views.version_command(streams.aggregate_id(stream.stream)) for stream in required_versions
    ]
    deadline = _now() + (DEFAULT_TIMEOUT if remaining is None else remaining - DEADLINE_MARGIN)
    backoff = Backoff(INITIAL_PAUSE, MAX_PAUSE)
    while True:
        incarnation, replies = await views.read_while_ready(*version_reads, *commands)
        if incarnation < decoded_token.incarnation:  # the projectors do not follow the restored database yet
            raise views.rebuilding_error()
        if incarnation > decoded_token.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token is from before the database was restored")
        if all(
            int(version or 0) >= required.version
            for version, required in zip(replies, required_versions, strict=False)
        ):
            return replies[len(required_versions) :]
        if _now() >= deadline:
            raise RpcError(
                "VIEW_BEHIND", "the view does not include the token's command yet", retry_after=0.1
            )
        await asyncio.sleep(min(backoff.next_pause(), max(deadline - _now(), 0)))


def _now() -> float:
    return asyncio.get_running_loop().time()
