"""Sends steps to their gRPC services, and separates final answers from calls with an unknown outcome.

It does without diptych-client, which repeats calls in memory: a step is repeated from its row, if need be by
another process, so a call here is one attempt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2

from contracts.manifest import context_of
from process_manager.dispatch.caller_record import WrongCaller
from process_manager.dispatch.client_credentials import ClientCredentials
from process_manager.dispatch.token_source import TokenFile, TokenSource
from process_manager.postgres.due_work import DueStep
from runtime.codec import message_class
from runtime.grpc.metadata import CAUSATION_ID, CORRELATION_ID, ID_PATTERNS
from runtime.process.setting_types import split_targets
from runtime.process.settings import Settings
from runtime.telemetry import trace_context
from runtime.tls.client_tls import check_targets, open_channel, open_client_tls

CheckToken = Callable[[str], Awaitable[None]]
FINAL_STATUSES = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""The statuses that reject a request, if they carry this system's ErrorInfo.

Another try may succeed after any other status, although some need an operator first: PERMISSION_DENIED ends
when the token has the missing scope."""
DENIED_STATUSES = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})
"""The statuses of calls whose token is invalid or lacks a scope."""
SILENT_STATUSES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""The statuses of calls to a service that is away or hangs, as far as a caller can know."""
OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Otherwise a new channel would share the connections of the one that it replaces.
    ("grpc.use_local_subchannel_pool", 1),
]
LONGEST_CALL = 60.0
"""Seconds that calls get to finish on a channel that was replaced."""


@dataclass(frozen=True, slots=True)
class StepReply:
    """The answer to a step: a response, or the reason of its rejection."""

    response: Any = None
    reason: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class OutcomeUnknown(Exception):
    """A call failed without a final answer; its request may have taken effect.

    Args:
        message: the error of the call.
        denied: whether the server refused the call because of this process's token or its scopes.
        silent: whether the service did not answer at all, so that any other call may fail as well.
        retry_after: seconds before which the service does not want the request again.
    """

    def __init__(
        self, message: str, *, denied: bool = False, silent: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.denied = denied
        self.silent = silent


class StepClient:
    """Channels to the command and query servers, one for each service.

    Services share no connection, because one that hangs may fill the connection's flow-control window.

    Args:
        settings: the addresses of the servers, the source of this process's token, and its certificates.
        check_token: raises WrongCaller for a token that must not be used.

    Raises:
        StartError: a file cannot be used, or tokens would be sent to other machines without TLS.
    """

    def __init__(self, settings: Settings, check_token: CheckToken | None = None) -> None:
        self._check_token = check_token
        self._command_address, self._query_address = settings.command_address, settings.query_address
        self._context_addresses = dict(split_targets(settings.command_targets))
        self.tls = open_client_tls(settings)
        """The certificates of calls; None for calls without TLS."""
        addresses = {self._command_address, self._query_address, *self._context_addresses.values()}
        check_targets(sorted(addresses), self.tls, settings.insecure)
        if self.tls is not None:
            self.tls.on_change.append(self._replace_channels)
        self.tokens: TokenSource = (
            ClientCredentials(settings)
            if settings.token_endpoint
            else TokenFile(settings.process_manager_token)
        )
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def call(
        self, step: DueStep, traceparent: str | None, *, within: float, reconnect: bool = False
    ) -> StepReply:
        """Send a step and return its answer.

        Args:
            step: the step.
            traceparent: the trace context to send.
            within: seconds until the call fails.
            reconnect: whether to use a new connection, in case the peer of the present one has vanished, and
                because a channel that cannot connect waits ever longer before it tries again.

        Raises:
            OutcomeUnknown: there was no final answer.
        """
        service, _, method = step.method[1:].partition("/")
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
        if reconnect and service in self._channels:
            self._close_later(self._channels.pop(service), within)
        call: Any = self._open_channel(service).unary_unary(
            step.method, response_deserializer=message_class(descriptor.output_type).FromString
        )
        try:
            metadata = self._create_metadata(step, traceparent, await self.read_token())
            return StepReply(await call(step.request, timeout=within, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            info, retry_after = _read_details(error)
            if error.code() in FINAL_STATUSES and info is not None and info.domain.endswith("diptych"):
                return StepReply(reason=info.reason, details=dict(info.metadata))
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self.tokens.note_rejection()
            raise OutcomeUnknown(
                f"{error.code().name}: {error.details()}",
                denied=error.code() in DENIED_STATUSES,
                # A view that is being rebuilt says nothing about the service's other methods.
                silent=error.code() in SILENT_STATUSES and not (info and info.reason.startswith("VIEW_")),
                retry_after=retry_after,
            ) from error
        except WrongCaller as error:
            raise OutcomeUnknown(str(error), denied=True) from error
        except (OSError, ValueError) as error:
            raise OutcomeUnknown(f"{self.tokens.setting}: {error}") from error

    async def close(self) -> None:
        await asyncio.gather(*self._closing, *(channel.close() for channel in self._channels.values()))

    def _replace_channels(self) -> None:
        """Make the next calls by new channels, which have the present certificates."""
        for channel in self._channels.values():
            self._close_later(channel, LONGEST_CALL)
        self._channels.clear()

    def _close_later(self, channel: grpc.aio.Channel, grace: float) -> None:
        """Close a channel as soon as its calls have ended, or after `grace` seconds."""
        task = asyncio.create_task(channel.close(grace))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _open_channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            if service.endswith(".QueryService"):
                address = self._query_address
            else:
                address = self._context_addresses.get(context_of(service), self._command_address)
            self._channels[service] = open_channel(address, self.tls, OPTIONS)
        return self._channels[service]

    def _create_metadata(
        self, step: DueStep, traceparent: str | None, token: str
    ) -> tuple[tuple[str, str], ...]:
        ids = {
            CORRELATION_ID: step.correlation_id,
            CAUSATION_ID: step.causation_id,
        }
        # gRPC would refuse the whole call for a value that is no text of a header. A saga that began with an
        # event of an earlier release may have one.
        sent = [(key, value) for key, value in ids.items() if ID_PATTERNS[key].fullmatch(value)]
        # Without a trace, as of an event that an earlier release recorded, each server would begin one.
        valid = trace_context.parse(traceparent or "")
        lone = trace_context.derive_unsampled(step.correlation_id or f"{step.saga}/{step.id}")
        return (("authorization", f"Bearer {token}"), *sent, ("traceparent", valid or lone))

    async def read_token(self) -> str:
        """Return the token, which is read for each call, since it may have been renewed.

        Raises:
            WrongCaller: it must not be used.
            OutcomeUnknown: the file holds no token.
            OSError, ValueError: there is none.
        """
        token = self.tokens.read()
        if not (token.isascii() and token.isprintable()):
            raise OutcomeUnknown(f"{self.tokens.setting}: the file holds no token", denied=True)
        if self._check_token is not None:
            await self._check_token(token)
        return token


def _read_details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo | None, float]:
    """Return the error's ErrorInfo, and the delay of its RetryInfo in seconds, 0 if it has none."""
    info, retry = None, error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                detail.Unpack(retry)
    return info, retry.retry_delay.ToNanoseconds() / 1e9
