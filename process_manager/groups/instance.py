"""A saga instance in a unit of work: its state, and the steps and timers to write. Pure.

How it works:

- A `UnitOfWork` loads an instance and delivers one or more inputs to it; the new state is then written
  together with the steps and timers that accumulated meanwhile.
- `react_to` is all or nothing: an exception from the saga's code leaves the instance unchanged.
- An event that the saga cannot process must not stop its partition. `receive_event` records the error as the
  failed input of the event's stream, the instance stays at the version before, and redelivery starts there.
- An instance whose row this release cannot read accepts no input: events become failed inputs, replies and
  timers stay undelivered. All of them are delivered once a release can read the row.
- Step names are unique, so a step that is sent twice is a bug, and so is a request of a type that the saga
  does not declare. Only an operator's action permits a repetition: one more attempt of each step, with a
  new request id, at once or in a later reaction.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from contracts import streams
from contracts.envelope import RecordedEvent
from contracts.forgetting import FORGOTTEN
from process_manager.groups.cause import Cause, read_cause
from process_manager.groups.step import Step, create_step, derive_request_id
from process_manager.groups.stream_position import StreamPosition
from process_manager.postgres.stored_values import check_storable, to_text
from process_manager.saga import (
    AbortRequested,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Saga,
    SagaStatus,
    Send,
)
from runtime.process.error_place import append_place, find_place
from runtime.process.logs.repeated_errors import describe_error

MAX_OTHER_STREAMS = 1000
"""The number of streams besides its own that an instance follows; the next one is a failed input."""


class RowUnreadable(Exception):
    """This release cannot read the instance's row, so the instance accepts no input; the message says why."""


@dataclass
class Instance:
    """A saga instance, with the steps and timers of its reactions since it was loaded.

    Args:
        saga: its definition.
        id: its id.
        state: its state.
        version: the version of the last event of its own stream that it has processed or passed over.
        began_at: when it processed the first event; None before that.
        correlation_id: the correlation id of its first event.
        traceparent: the trace context of its first event.
        latest_cause: of its latest input that was a cause; None if a release wrote the row that kept none.
        attempts: the number of attempts of each of its steps, by the names of the steps.
        operator_actions: the number of operators' actions on it.
        failed_input: why it could not process the next event of its own stream; empty if there is none.
        other_streams: its positions in the other streams that it follows, by stream.
        stored_status: the state of its status when it was loaded.
        status_since: when it entered that state.
        unreadable: why this release cannot read the row; empty if it can. `state` then means nothing.
        positions_unreadable: whether `other_streams` means nothing either.
        was_unreadable: whether the row was marked as unreadable when it was loaded.
        was_failing: whether it had not processed the next event of a stream when it was loaded.
        pending: the names and attempts of its steps without an outcome.
        revision: of the stored row; None if it has none.
        steps: the steps to write.
        timers: the timers to set, and those to cancel with None, by their names.
        timer_causes: the causes of those to set.
        received: the events that it has taken in.
    """

    saga: Saga[Any]
    id: str
    state: Any
    version: int = 0
    began_at: datetime | None = None
    correlation_id: str = ""
    traceparent: str | None = None
    latest_cause: Cause | None = None
    attempts: dict[str, int] = field(default_factory=dict)
    operator_actions: int = 0
    failed_input: str = ""
    other_streams: dict[str, StreamPosition] = field(default_factory=dict)
    stored_status: str = ""
    status_since: datetime | None = None
    unreadable: str = ""
    positions_unreadable: bool = False
    was_unreadable: bool = False
    was_failing: bool = False
    pending: set[tuple[str, int]] = field(default_factory=set)
    revision: int | None = None
    steps: list[Step] = field(default_factory=list)
    timers: dict[str, datetime | None] = field(default_factory=dict)
    timer_causes: dict[str, Cause] = field(default_factory=dict)
    received: list[RecordedEvent] = field(default_factory=list)

    @property
    def status(self) -> SagaStatus:
        """The status that the saga describes; an event that it could not process blocks it, too."""
        if self.unreadable:
            return SagaStatus(self.stored_status, False, blocked_reason=self.unreadable)
        status = self.saga.describe_status(self.state)
        return replace(status, blocked_reason=self.failure or status.blocked_reason)

    @property
    def key(self) -> tuple[str, str]:
        return self.saga.name, self.id

    @property
    def first_cause(self) -> Cause:
        """The cause of what an operator requests, and of what a release left without one."""
        return Cause(self.correlation_id, f"{self.saga.name}/{self.id}"[:128], self.traceparent)

    @property
    def own_key(self) -> tuple[str, str]:
        """The saga and the own stream."""
        return self.saga.name, self.own_stream

    @property
    def own_stream(self) -> str:
        """The stream of the aggregate with the instance's id; empty if the saga follows no such stream."""
        return streams.stream_name(self.saga.own_type, self.id) if self.saga.own_type else ""

    @property
    def exists(self) -> bool:
        """Whether it has processed an event, or failed on one."""
        return self.began_at is not None or bool(self.failure)

    @property
    def failure(self) -> str:
        """Why it could not process the next event of a stream; empty if there is no such event."""
        if self.failed_input or not self.other_streams:
            return self.failed_input
        failures = ((stream, each.failed_input) for stream, each in self.other_streams.items())
        return min((each for each in failures if each[1]), default=("", ""))[1]

    @property
    def failed_event_id(self) -> str | None:
        """The id of the event that it could not process; None if there is none."""
        positions = {self.own_stream: self.find_position(self.own_stream), **self.other_streams}
        failed = (stream for stream, each in positions.items() if each.failed_input)
        stream = self.own_stream if self.failed_input else min(failed, default=None)
        return None if stream is None else f"{stream}@{positions[stream].failed_version}"

    @property
    def _follows_maximum(self) -> bool:
        return sum(position.version > 0 for position in self.other_streams.values()) >= MAX_OTHER_STREAMS

    def find_obstacle(self, stream: str) -> str:
        """Return why neither a position nor a failure in a stream can be recorded; empty if it can."""
        if stream == self.own_stream or stream in self.other_streams:
            return ""
        if self.positions_unreadable:
            return f"{self.id}: {self.unreadable}"
        full = len(self.other_streams) > MAX_OTHER_STREAMS
        return f"{self.id} follows too many streams" if full else ""

    def find_position(self, stream: str) -> StreamPosition:
        if stream == self.own_stream:
            return StreamPosition(self.version, self.failed_input)
        return self.other_streams.get(stream, StreamPosition())

    def set_position(self, stream: str, position: StreamPosition) -> None:
        if stream == self.own_stream:
            self.version, self.failed_input = position.version, position.failed_input
        else:
            self.other_streams[stream] = position

    def react_to(self, input_: Input, cause: Cause | None = None) -> None:
        """Apply the saga's reaction to an input.

        Args:
            input_: the input.
            cause: of the steps and timers that it adds; None for the latest one.

        Raises:
            RowUnreadable: the instance accepts no input.
            Exception: the saga's code failed, repeated a step, or sent a request that it does not declare; or
                the reaction cannot be stored. The instance is unchanged.
        """
        if self.unreadable:
            raise RowUnreadable(self.unreadable)
        reaction: Reaction[Any] = self.saga.react(self.state, input_)
        check_storable(self.saga, reaction)
        cause = cause or self.latest_cause or self.first_cause
        actions = self.operator_actions + isinstance(input_, RetryRequested | AbortRequested)
        steps = [self._create_step(send, actions, index, cause) for index, send in enumerate(reaction.send)]
        self.state, self.latest_cause, self.operator_actions = reaction.state, cause, actions
        self.steps += steps
        self.attempts.update({step.step: step.attempt for step in steps})
        self.timers.update({timer.name: timer.at for timer in reaction.timers})
        self.timer_causes.update({timer.name: cause for timer in reaction.timers})

    def receive_event(self, event: RecordedEvent, at: datetime) -> bool:
        """React to the next event of a stream; return False if the saga could not process it.

        The reason is then the failed input of the stream: an exception of the saga's code, an unknown type of
        event, or more streams than MAX_OTHER_STREAMS.
        """
        position = self.find_position(event.stream)
        try:
            if not position.version and self._follows_maximum and event.stream != self.own_stream:
                raise ValueError(f"{self.id} follows {MAX_OTHER_STREAMS} other streams already")
            if event.type != FORGOTTEN:  # sagas keep nothing of a person, and go on
                message = self.saga.find_subscription(event.stream).events.decode(event)
                self.react_to(
                    EventReceived(message, event.version, event.stream, at), self._find_cause(event)
                )
        except Exception as error:  # an event may contain anything; it blocks this instance alone
            text = append_place(f"failed: {describe_error(error)}", find_place(error, __name__))
            self._fail(event.stream, event.version, text)
            return False
        if self.began_at is None:
            self.began_at = at
            self.correlation_id = event.metadata.get("correlation_id", "")
            self.traceparent = event.metadata.get("traceparent")
        self.set_position(event.stream, StreamPosition(event.version))
        self.received.append(event)
        return True

    def _find_cause(self, event: RecordedEvent) -> Cause | None:
        """Return an event as a cause; None if it only follows from a step with an earlier cause."""
        cause, latest = read_cause(event), self.latest_cause
        if latest is None or cause.correlation_id == latest.correlation_id:
            return cause
        request_id = event.metadata.get("causation_id", "")
        own_ids = (
            str(derive_request_id(self.saga.name, self.id, step, attempt))
            for step, attempts in self.attempts.items()
            for attempt in range(1, attempts + 1)
        )
        return None if request_id in own_ids else cause

    def refuse_event(self, event: RecordedEvent, error: str) -> None:
        """Record that what the saga makes of an event cannot be stored."""
        self._fail(event.stream, event.version, f"cannot be stored: {error}")

    def keep_waiting(self, stream: str, version: int) -> None:
        """Record that the events of a stream wait from this version on, until the row can be read."""
        if not self.find_position(stream).failed_input:
            self._fail(stream, version, f"waits: {self.unreadable}")

    def _fail(self, stream: str, version: int, error: str) -> None:
        name = "" if stream == self.own_stream else f" of {stream}"
        text = to_text(f"version {version}{name} {error}")
        self.set_position(stream, replace(self.find_position(stream), failed_input=text))

    def _create_step(self, send: Send, operator_actions: int, index: int, cause: Cause) -> Step:
        previous = self.attempts.get(send.step, 0)
        if previous > operator_actions:
            raise ValueError(f"{send.step} was sent before")
        number = sum(self.attempts.values()) + index + 1
        return create_step(self.saga, self.id, send, previous + 1, number, cause)
