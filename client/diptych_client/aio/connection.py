"""A connection for asyncio: commands, queries and watches on a channel of grpc.aio."""

import asyncio
from typing import Any, Self, TypeVar
from weakref import WeakSet

import grpc
import grpc.aio
from diptych.consistency.v1.consistency_pb2 import Receipt

from diptych_client.aio.access_token import ReadToken, TokenSource, read_from
from diptych_client.aio.pause import wait_until_closed
from diptych_client.aio.watch import Watch
from diptych_client.channel_options import Options, build_options, find_credentials
from diptych_client.errors import Rejection
from diptych_client.retry_budget import RetryBudget
from diptych_client.retry_schedule import RetrySchedule
from diptych_client.session import (
    CommandResponse,
    Fresh,
    Metadata,
    Request,
    Session,
    WatchResponse,
    build_metadata,
    identify,
)

Response = TypeVar("Response")
Command = TypeVar("Command", bound=CommandResponse)
Watched = TypeVar("Watched", bound=WatchResponse)


def connect(
    target: str,
    *,
    token: TokenSource = None,
    tls: grpc.ChannelCredentials | bool = False,
    follows: "Connection | None" = None,
    retry_budget: RetryBudget | None = None,
    options: Options = (),
) -> "Connection":
    """Return a connection to the replicas of a server; call it within the event loop.

    Args:
        target: a gRPC target that reaches all replicas, for instance `dns:///commands.internal:50051`.
        token: the access token, or a function or coroutine function that returns a fresh one; it is called
            before each attempt.
        tls: True for TLS with the system's roots, credentials for other TLS, False for plaintext.
        follows: a connection whose last receipt `fresh=True` means here, too.
        retry_budget: the limit of retries; by default one of its own.
        options: further options of the gRPC channel, which win over the connection's.
    """
    credentials = find_credentials(tls)
    arguments = build_options(target, options)
    channel = (
        grpc.aio.secure_channel(target, credentials, arguments)
        if credentials
        else grpc.aio.insecure_channel(target, arguments)
    )
    session = Session(retry_budget, follows.session.last_receipt if follows else None)
    return Connection(channel, read_from(token), session)


class Connection:
    """Sends commands and queries, for use by any number of tasks of one event loop; made by `connect`.

    Attributes:
        channel: the channel, to create stubs on. Methods that are called directly on a stub are not repeated.
        session: the state that calls share.
    """

    def __init__(self, channel: grpc.aio.Channel, read_token: ReadToken, session: Session) -> None:
        self.channel = channel
        self.session = session
        self._read_token = read_token
        self._closed = asyncio.Event()
        self._watches: WeakSet[Watch[Any]] = WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def consistency_token(self) -> str:
        """The token of the last receipt; empty if there was none."""
        return self.session.last_receipt.consistency_token

    async def send(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Command]",
        request: Request,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - a deadline for several attempts, which travels with each
        metadata: Metadata = (),
    ) -> Receipt:
        """Send a command until its outcome is known; return its receipt.

        Args:
            method: a method of a CommandService's stub.
            request: the command. Without a request id it gets a new one, in a copy; with one it can be
                continued by another call or process.
            timeout: seconds for all attempts together.
            metadata: further metadata, for instance `diptych-correlation-id`.

        Raises:
            Rejection: the command was rejected and changed nothing.
            OutcomeUnknown: no attempt was answered in time.
        """
        command, request_id = identify(request)
        schedule = RetrySchedule(timeout, self.session.budget)
        try:
            receipt = (await self._call(method, command, schedule, metadata)).receipt
        except Rejection as rejection:
            raise schedule.outcome_of(rejection, request_id) from rejection.__cause__
        self.session.last_receipt.record(receipt)
        return receipt

    async def query(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        fresh: Fresh = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - a deadline for several attempts, which travels with each
        metadata: Metadata = (),
    ) -> Response:
        """Return the response to a query.

        Args:
            method: a method of a QueryService's stub.
            request: the query.
            fresh: the commands that the response must include: a receipt, a consistency token, or True for
                the last receipt of this connection or one that it follows, whichever task got it.
            timeout: seconds for all attempts together.
            metadata: further metadata.

        Raises:
            Rejection: the query was rejected, or could not be answered in time.
        """
        query = self.session.include(request, fresh)
        return await self._call(method, query, RetrySchedule(timeout, self.session.budget), metadata)

    def watch(
        self,
        method: "grpc.aio.UnaryStreamMultiCallable[Request, Watched]",
        request: Request,
        *,
        fresh: Fresh = None,
        metadata: Metadata = (),
    ) -> Watch[Watched]:
        """Return an asynchronous iterator over the responses of a watch, which resumes until it is closed.

        Args:
            method: a streaming method of a QueryService's stub.
            request: the watch, with the `resume_token` of an earlier one to continue it.
            fresh: as for `query`.
            metadata: further metadata.
        """
        watch = Watch(method, self.session.include(request, fresh), self._read_token, metadata)
        self._watches.add(watch)
        return watch

    async def close(self) -> None:
        """Close the channel; calls in progress end with an error, watches end."""
        self._closed.set()
        for watch in list(self._watches):
            watch.close()
        await self.channel.close()

    async def _call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        schedule: RetrySchedule,
        metadata: Metadata,
    ) -> Response:
        while True:
            token = await self._read_token()
            timeout = schedule.start_attempt(token)
            try:
                return await method(request, timeout=timeout, metadata=build_metadata(token, metadata))
            except grpc.RpcError as error:
                rejection = Rejection.from_error(error)
            if await wait_until_closed(self._closed, schedule.pause_after(rejection)):
                raise rejection
