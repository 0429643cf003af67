"""The decisions of one batch: commands in order of arrival, several on one stream building on each other.

All is in memory and without I/O: what is stored goes in, what is to be written comes out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any

import msgspec

from command_server.kernel.context import AggregateType, CommandType
from command_server.kernel.decider import Rejected, RejectionKind
from command_server.kernel.outcomes import Accepted, Outcome, Rejection, RequestIdReused
from command_server.kernel.ports import Changes, EventRow, RequestKey, RequestRow, StoredRequest, StreamRow

_encode_metadata = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it arrived, with all that must be known of its arrival."""

    kind: CommandType
    command: Any
    caller: str
    request_id: str
    """A UUID in lower case, as its 36 characters: it is compared, sorted and written, nothing else."""
    hash: bytes
    expected_version: int | None
    on_behalf_of: str | None
    correlation_id: str
    causation_id: str | None
    traceparent: str | None
    arrived: float
    """By `perf_counter`, in seconds."""
    deadline: float | None
    """By the same clock; None where the caller set none."""

    @property
    def key(self) -> RequestKey:
        """What makes the request unique."""
        return self.caller, self.request_id


class NotLoaded(Exception):
    """A command is about streams that nobody knew of when the batch was loaded: decide it again."""


@dataclass(slots=True)
class Stream:
    """A stream while a batch is decided."""

    type: AggregateType
    version: int
    state: Any
    updated_at: datetime
    is_new: bool
    changed: bool = False


class Batch:
    """Decides requests one after the other and gathers what they write.

    Args:
        streams: every stream of every request, as it is stored.
        requests: what is recorded already under the requests' ids.
        clock: the time in UTC.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        requests: Mapping[RequestKey, StoredRequest],
        clock: Callable[[], datetime],
    ) -> None:
        self._streams = streams
        self._known = dict(requests)
        self._clock = clock
        self._changes = Changes()

    def decide(self, request: Request) -> Outcome:
        """Return how a request ends.

        Raises:
            RequestIdReused: the id stands for another request.
            NotLoaded: the request belongs to a later batch; it has changed nothing.
            Exception: the domain's code failed; the request has changed nothing.
        """
        if known := self._known.get(request.key):
            if (known.type, known.hash) != (request.kind.name, request.hash):
                raise RequestIdReused
            return known.outcome
        streams = self._streams_of(request)
        now = max(self._clock(), *(stream.updated_at for stream in streams.values()))
        outcome = self._outcome(request, streams, now)
        self._known[request.key] = StoredRequest(request.kind.name, request.hash, outcome)
        self._changes.requests.append(_request_row(request, next(iter(streams)), outcome, now))
        return outcome

    def _streams_of(self, request: Request) -> dict[str, Stream]:
        decider, command = request.kind.decider, request.command
        streams = {name: self._streams[name] for name in decider.streams(command)}
        related_streams = decider.related_streams(
            command, {name: stream.state for name, stream in streams.items()}
        )
        if unknown := [name for name in related_streams if name not in self._streams]:
            raise NotLoaded(unknown)
        return streams | {name: self._streams[name] for name in related_streams}

    def changes(self) -> Changes:
        """Return all that the decisions write."""
        self._changes.streams = [
            _stream_row(name, stream) for name, stream in self._streams.items() if stream.changed
        ]
        return self._changes

    def _outcome(self, request: Request, streams: Mapping[str, Stream], now: datetime) -> Outcome:
        expected, actual = request.expected_version, next(iter(streams.values())).version
        if expected is not None and expected != actual:
            details = {"expected_version": str(expected), "actual_version": str(actual)}
            return Rejection("VERSION_MISMATCH", RejectionKind.VERSION, details)
        states = {name: stream.state for name, stream in streams.items()}
        try:
            decided = request.kind.decider.decide(request.command, states, now)
        except Rejected as error:
            return Rejection(error.reason, error.kind, error.details)
        self._apply(request, streams, decided, now)
        return Accepted({name: stream.version for name, stream in streams.items()}, now)

    def _apply(
        self,
        request: Request,
        streams: Mapping[str, Stream],
        decided: Mapping[str, Sequence[Any]],
        now: datetime,
    ) -> None:
        metadata = _metadata(request)
        rows, folded = [], []
        for name, events in decided.items():
            stream = streams[name]
            state = stream.state
            for version, event in enumerate(events, stream.version + 1):
                state = stream.type.evolve(state, event)
                rows.append(EventRow(name, version, *stream.type.encode(event), metadata, now))
            folded.append((stream, len(events), state))
        # From here on nothing can fail, so a request takes effect on all its streams or on none.
        self._changes.events += rows
        for stream, count, state in folded:
            if count:
                stream.version += count
                stream.state, stream.updated_at, stream.changed = state, now, True


def _metadata(request: Request) -> str:
    metadata = {
        "actor": request.caller,
        "on_behalf_of": request.on_behalf_of,
        "command": request.kind.name,
        "correlation_id": request.correlation_id,
        "causation_id": request.request_id,
        "traceparent": request.traceparent,
    }
    return _encode_metadata({key: value for key, value in metadata.items() if value is not None}).decode()


def _stream_row(name: str, stream: Stream) -> StreamRow:
    snapshots = stream.type.snapshots
    return StreamRow(
        name,
        stream.type.stream_type,
        stream.version,
        stream.updated_at,
        snapshots.encode(stream.state),
        snapshots.fingerprint,
        stream.is_new,
    )


def _request_row(request: Request, stream: str, outcome: Outcome, now: datetime) -> RequestRow:
    return RequestRow(
        request.caller,
        request.request_id,
        request.kind.name,
        request.hash,
        outcome,
        stream,
        request.on_behalf_of,
        request.correlation_id,
        request.causation_id,
        request.traceparent,
        int((perf_counter() - request.arrived) * 1e6),
        now,
    )
