"""Reads of a projection that include the writes that a consistency token names.

How it works. A token names streams and their versions. Of these, only the streams that the projection
consumes matter, and those that its views include by way of them (`View.includes`). Each belongs to a view
whose hash stores the version that it includes. One pipeline reads those versions first and the requested
data behind them, so the data is at least as new as the versions. While a version is too low, the call waits
until that view has reached it (`AwaitedVersions`), and repeats the pipeline. Waiting calls are bounded in
time and number (`runtime.grpc.waits`). A view that is parked for good reaches no further version by itself,
so nobody waits for it. The caught-up marker names the incarnation of the database that the projection
follows; a token of another one cannot be satisfied.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from diptych.consistency.v1.consistency_pb2 import Token

from contracts import streams
from query_server.awaited_versions import AwaitedVersions
from query_server.change_notifications import ChangeNotifications
from query_server.view_reader import ViewReader
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import Waits, Woken
from runtime.redis.pipeline import Command

RETRY_AFTER = 0.1
"""Seconds after which a projection that was behind may include the token's command."""
PARKED_RETRY_AFTER = 5.0
"""Seconds after which a parked view is read again: a projector that can read its event may have started."""


class ParkedRecord(msgspec.Struct, frozen=True):
    """What matters here of the record of a parked aggregate."""

    version: int
    """Of the event that cannot be applied."""
    attempts: int
    state: Literal["retrying", "parked"]

    @classmethod
    def parse(cls, record: bytes | None) -> "ParkedRecord | None":
        """Return the record; None if there is none, or it cannot be read."""
        try:
            return _decode_parked(record) if record else None
        except msgspec.MsgspecError:
            return None


_decode_parked = msgspec.json.Decoder(ParkedRecord).decode


class MissingVersion(msgspec.Struct, frozen=True):
    """A version that a view has not reached."""

    view_id: str
    column: str
    """The column of the version."""
    version: int
    parked: ParkedRecord | None
    """If the view is parked."""

    def parked_error(self, projection: str) -> RpcError | None:
        """Return the error of a view that lacks the version because an event cannot be applied; else None."""
        if self.parked is None or not self.parked.attempts:  # events that were missing are being applied
            return None
        metadata = {"projection": projection, "version": str(self.parked.version)}
        text = "the view cannot include an event yet"
        return RpcError("VIEW_PARKED", text, metadata, retry_after=PARKED_RETRY_AFTER)


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

    async def read(
        self,
        token: str,
        *commands: Command,
        deadline: float | None = None,
        views: ViewReader | None = None,
    ) -> list[Any]:
        """Return replies that include the writes of a consistency token.

        Args:
            token: the consistency token.
            commands: the reads.
            deadline: of the call, from `compute_deadline`; None if it has none.
            views: the reader of the call's answer; None for the projection's own.

        Raises:
            RpcError: `TOKEN_INVALID`; `TOKEN_OUTDATED`, the database was restored after the token was issued;
                `VIEW_REBUILDING`, the projection follows an earlier incarnation of the database than the
                token; `VIEW_BEHIND`, the writes were not included in time; `VIEW_PARKED`, an event cannot be
                applied; `TOO_MANY_WAITS`, too many calls wait; and the errors of `ViewReader`.
        """
        content = self.tokens.read_consistency_token(token)
        required = [
            (streams.aggregate_id(each.stream), column, each.version)
            for each in content.streams
            if (column := self._views.view.find_version_column(streams.stream_type(each.stream)))
        ]
        views = views or self._views
        missing, replies = await self._try_read(views, content, required, commands)
        if missing is None:
            return replies
        if missing.parked and missing.parked.state == "parked" and (error := self._describe_parked(missing)):
            raise error
        with self._waits.begin(deadline) as wait:
            while missing is not None:
                woken = await self._awaited_versions.wait_for(
                    (missing.view_id, missing.column), missing.version, content.incarnation, wait
                )
                if woken is Woken.TIME_UP:
                    text = "the view does not include the token's command yet"
                    behind = RpcError("VIEW_BEHIND", text, retry_after=RETRY_AFTER)
                    raise self._describe_parked(missing) or behind
                missing, replies = await self._try_read(views, content, required, commands)
        return replies

    def _describe_parked(self, missing: MissingVersion) -> RpcError | None:
        return missing.parked_error(self._views.view.projection)

    async def _try_read(
        self,
        views: ViewReader,
        token: Token,
        required: Sequence[tuple[str, str, int]],
        commands: tuple[Command, ...],
    ) -> tuple[MissingVersion | None, list[Any]]:
        """Return the first required version that is not reached, None if all are, and the replies.

        Args:
            views: the reader of the answer.
            token: the consistency token.
            required: view ids with the columns and values of the versions to reach.
            commands: the reads.
        """
        views.age.restart()
        version_reads = [views.version_command(view_id, column) for view_id, column, _ in required]
        incarnation, replies = await views.read_while_ready(*version_reads, *commands)
        if incarnation < token.incarnation:  # the projectors do not follow the restored database yet
            raise views.rebuilding_error()
        if incarnation > token.incarnation:
            raise RpcError("TOKEN_OUTDATED", "the token is from before the database was restored")
        for (view_id, column, needed), (version, parked) in zip(required, replies, strict=False):
            if views.parse_version(view_id, version) < needed:
                return MissingVersion(view_id, column, needed, ParkedRecord.parse(parked)), []
        return None, replies[len(required) :]
