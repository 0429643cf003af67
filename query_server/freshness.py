"""Reads of a projection that include the writes that a consistency token names.

How it works. A token names streams and their versions. Of these, only the streams that the projection
consumes matter; each belongs to a view whose hash stores the version that it includes. One pipeline reads
those versions first and the requested data behind them, so the data is at least as new as the versions.
While a version is too low, the call waits until that view has reached it (`AwaitedVersions`), and repeats the
pipeline. Waiting calls are bounded in time and number (`runtime.grpc.waits`). The caught-up marker names the
incarnation of the database that the projection follows; a token of another one cannot be satisfied.
"""

from typing import Any

from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token

from contracts import streams
from query_server.awaited_versions import AwaitedVersions
from query_server.change_notifications import ChangeNotifications
from query_server.redis_client import Command
from query_server.view_reader import ViewReader
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import Waits, Woken

RETRY_AFTER = 0.1
"""Seconds after which a projection that was behind may include the token's command."""


class Freshness:
    """Fresh reads of one projection, for all calls of a process.

    Args:
        views: the projection.
        tokens: reads consistency tokens.
        waits: bounds the calls that wait.
        notifications: of changes of the projection's views.
    """

    def __init__(
        self, views: ViewReader, tokens: RequestTokens, waits: Waits, notifications: ChangeNotifications
    ) -> None:
        self.tokens = tokens
        self._views = views
        self._waits = waits
        self._awaited_versions = AwaitedVersions(views, notifications)

    async def read(self, token: str, *commands: Command, deadline: float | None = None) -> list[Any]:
        """Return replies that include the writes of a consistency token.

        Args:
            token: the consistency token.
            commands: the reads.
            deadline: of the call, from `compute_deadline`; None if it has none.

        Raises:
            RpcError: `TOKEN_INVALID`; `TOKEN_OUTDATED`, the database was restored after the token was issued;
                `VIEW_REBUILDING`, the projection follows an earlier incarnation of the database than the
                token; `VIEW_BEHIND`, the writes were not included in time; `TOO_MANY_WAITS`, too many calls
                wait; and the errors of `ViewReader`.
        """
        content = self.tokens.read_consistency_token(token)
        required = [
            stream
            for stream in content.streams
            if streams.stream_type(stream.stream) in self._views.view.source_streams
        ]
        missing, replies = await self._try_read(content, required, commands)
        if missing is None:
            return replies
        with self._waits.begin(deadline) as wait:
            while missing is not None:
                woken = await self._awaited_versions.wait_for(
                    streams.aggregate_id(missing.stream), missing.version, content.incarnation, wait
                )
                if woken is Woken.TIME_UP:
                    text = "the view does not include the token's command yet"
                    raise RpcError("VIEW_BEHIND", text, retry_after=RETRY_AFTER)
                missing, replies = await self._try_read(content, required, commands)
        return replies

    async def _try_read(
        self, token: Token, required: list[StreamVersion], commands: tuple[Command, ...]
    ) -> tuple[StreamVersion | None, list[Any]]:
        """Return the first required version that is not reached, None if all are, and the replies."""
        version_reads = [
            self._views.version_command(streams.aggregate_id(stream.stream)) for stream in required
        ]
        incarnation, replies = await self._views.read_while_ready(*version_reads, *commands)
        if incarnation < token.incarnation:  # the projectors do not follow the restored database yet
            raise self._views.rebuilding_error()
        if incarnation > token.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token is from before the database was restored")
        for stream, version in zip(required, replies, strict=False):
            view_id = streams.aggregate_id(stream.stream)
            if self._views.parse_version(view_id, version) < stream.version:
                return stream, []
        return None, replies[len(required) :]
