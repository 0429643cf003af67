"""One saga while it is told something: what it was, what it has become, and what that writes. Pure."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from process_manager.saga import EventReceived, Input, Reaction, RetryRequested, Saga, SagaStatus, Send

REQUEST_IDS = UUID("2a9c1f0e-7c58-5d0b-8a55-0d2f6e0c3b71")
"""The namespace of the request ids of steps."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request that is to be sent until it is answered."""

    step: str
    attempt: int
    number: int
    method: str
    request: bytes
    request_id: UUID


@dataclass
class Instance:
    """A saga of one kind and id, and all that it has wanted since it was loaded.

    Args:
        saga: its kind.
        id: its id.
        state: what it remembers.
        version: of the last event that it has heard.
        began_at: when it heard the first; None for one that has heard nothing yet.
        correlation_id: of its first event.
        traceparent: likewise.
        attempts: how often each of its steps was wanted so far, by the steps' names.
        stuck: why it cannot be told its next event; empty where it can.
        stood: where it was when it was loaded.
        since: since when.
    """

    saga: Saga[Any]
    id: str
    state: Any
    version: int = 0
    began_at: datetime | None = None
    correlation_id: str = ""
    traceparent: str | None = None
    attempts: dict[str, int] = field(default_factory=dict)
    failed_input: str = ""
    stored_status: str = ""
    status_since: datetime | None = None
    steps: list[Step] = field(default_factory=list)
    timers: dict[str, datetime | None] = field(default_factory=dict)

    @property
    def status(self) -> SagaStatus:
        """Where it is."""
        status = self.saga.status(self.state)
        return replace(status, blocked_reason=self.failed_input or status.blocked_reason)

    def react_to(self, received: Input) -> None:
        """Let the saga react.

        Raises:
            Exception: the saga's code failed, or has sent a step twice; it stays as it was.
        """
        reaction: Reaction[Any] = self.saga.react(self.state, received)
        steps = [self._step(wanted, received, n) for n, wanted in enumerate(reaction.send)]
        self.state = reaction.state
        self.steps += steps
        self.attempts.update({step.step: step.attempt for step in steps})
        self.timers.update({timer.name: timer.at for timer in reaction.timers})

    def receive_event(self, event: RecordedEvent, at: datetime) -> bool:
        """Let the saga react to the next event of its stream; return whether it could.

        A saga that cannot, or an event of a type that this code does not know, is stuck there.
        """
        try:
            message = self.saga.decode(event)
            self.react_to(EventReceived(message, event.version, at))
        except Exception as error:  # an event may hold anything; it stops this saga alone
            self.failed_input = f"version {event.version} cannot be told: {type(error).__name__}: {error}"
            return False
        self.failed_input = ""
        if self.began_at is None:
            self.began_at = at
            self.correlation_id = event.metadata.get("correlation_id", "")
            self.traceparent = event.metadata.get("traceparent")
        self.version = event.version
        return True

    def _step(self, wanted: Send, received: Input, nth: int) -> Step:
        before = self.attempts.get(wanted.step, 0)
        if before and not isinstance(received, RetryRequested):
            raise ValueError(f"{wanted.step} was sent before")
        request_id = uuid5(REQUEST_IDS, f"{self.saga.name}/{self.id}/{wanted.step}/{before + 1}")
        return Step(
            wanted.step,
            before + 1,
            sum(self.attempts.values()) + nth + 1,
            path_of(method_of(wanted.request)),
            _with_id(wanted.request, request_id),
            request_id,
        )


def method_of(request: Message) -> Any:
    """Return the descriptor of the method that takes requests of this kind.

    Raises:
        LookupError: none of the services beside its message does.
    """
    for service in request.DESCRIPTOR.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request.DESCRIPTOR:
                return method
    raise LookupError(f"no method takes {request.DESCRIPTOR.full_name}")


def path_of(method: Any) -> str:
    """Return a method's path, `/<package>.<Service>/<Method>`."""
    return f"/{method.containing_service.full_name}/{method.name}"


def _with_id(request: Message, request_id: UUID) -> bytes:
    if "request_id" not in request.DESCRIPTOR.fields_by_name:
        return request.SerializeToString(deterministic=True)  # a query
    copy: Any = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(request_id)
    return bytes(copy.SerializeToString(deterministic=True))
