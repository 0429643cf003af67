"""A connection for threads: commands, queries and watches on a channel of grpc."""

import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar
from weakref import WeakSet

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt

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
from diptych_client.watch import Watch

Response = TypeVar("Response")
Command = TypeVar("Command", bound=CommandResponse)
Watched = TypeVar("Watched", bound=WatchResponse)


def connect(
    target: str,
    *,
    token: str | Callable[[], str] | None = None,
    tls: grpc.ChannelCredentials | bool = False,
    follows: "Connection | None" = None,
    retry_budget: RetryBudget | None = None,
    options: Options = (),
) -> "Connection":
    """Return a connection to the replicas of a server; it connects in the background.

    Args:
        target: a gRPC target that reaches all replicas, for instance `dns:///commands.internal:50051`.
        token: the access token, or a function that returns a fresh one; it is called before each attempt.
        tls: True for TLS with the system's roots, credentials for other TLS, False for plaintext.
        follows: a connection whose last receipt `fresh=True` means here, too.
        retry_budget: the limit of retries; by default one of its own.
        options: further options of the gRPC channel, which win over the connection's.
    """
    credentials = find_credentials(tls)
    arguments = build_options(target, options)
    channel = (
        grpc.secure_channel(target, credentials, arguments)
        if credentials
        else grpc.insecure_channel(target, arguments)
    )
    read_token = token if callable(token) else lambda: token or ""
    session = Session(retry_budget, follows.session.last_receipt if follows else None)
    return Connection(channel, read_token, session)


class Connection:
    """Sends commands and queries, for use by any number of threads; made by `connect`.

    Attributes:
        channel: the channel, to create stubs on. Methods that are called directly on a stub are not repeated.
        session: the state that calls share.
    """

    def __init__(self, channel: grpc.Channel, read_token: Callable[[], str], session: Session) -> None:
        self.channel = channel
        self.session = session
        self._read_token = read_token
        self._closed = threading.Event()
        self._watches: WeakSet[Watch[Any]] = WeakSet()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def consistency_token(self) -> str:
        """The token of the last receipt; empty if there was none."""
        return self.session.last_receipt.consistency_token

    def send(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Command]",
        request: Request,
        *,
        timeout: float = 30.0,
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
            receipt = self._call(method, command, schedule, metadata).receipt
        except Rejection as rejection:
            raise schedule.outcome_of(rejection, request_id) from rejection.__cause__
        self.session.last_receipt.record(receipt)
        return receipt

    def query(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        fresh: Fresh = None,
        timeout: float = 10.0,
        metadata: Metadata = (),
    ) -> Response:
        """Return the response to a query.

        Args:
            method: a method of a QueryService's stub.
            request: the query.
            fresh: the commands that the response must include: a receipt, a consistency token, or True for
                the last receipt of this connection or one that it follows, whichever thread got it.
            timeout: seconds for all attempts together.
            metadata: further metadata.

        Raises:
            Rejection: the query was rejected, or could not be answered in time.
        """
        query = self.session.include(request, fresh)
        return self._call(method, query, RetrySchedule(timeout, self.session.budget), metadata)

    def watch(
        self,
        method: "grpc.UnaryStreamMultiCallable[Request, Watched]",
        request: Request,
        *,
        fresh: Fresh = None,
        metadata: Metadata = (),
    ) -> Watch[Watched]:
        """Return an iterator over the responses of a watch, which resumes until it is closed.

        Args:
            method: a streaming method of a QueryService's stub.
            request: the watch, with the `resume_token` of an earlier one to continue it.
            fresh: as for `query`.
            metadata: further metadata.
        """
        watch = Watch(method, self.session.include(request, fresh), self._read_token, metadata)
        with self._lock:
            self._watches.add(watch)
        return watch

    def close(self) -> None:
        """Close the channel; calls in progress end with an error, watches end."""
        self._closed.set()
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.close()
        self.channel.close()

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        schedule: RetrySchedule,
        metadata: Metadata,
    ) -> Response:
        while True:
            token = self._read_token()
            timeout = schedule.start_attempt(token)
            try:
                return method(request, timeout=timeout, metadata=build_metadata(token, metadata))
            except grpc.RpcError as error:
                rejection = Rejection.from_error(error)
            if self._closed.wait(schedule.pause_after(rejection)):
                raise rejection
