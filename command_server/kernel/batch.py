"""The decisions of one batch, in memory: loaded streams and recorded requests in, rows to write out.

Commands are decided in order of arrival. Each sees the state that the commands before it produced.

A caller who reaches its own objects alone gets the same answers about the objects of others as about missing
ones: the decision sees their streams without events. If it adds some nevertheless, the command is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import msgspec

from command_server.kernel.clock import choose_time
from command_server.kernel.context import LOOKUP_FIELD, AggregateType, CommandType
from command_server.kernel.decider import NotFound, Rejected, RejectionKind, no_related_streams
from command_server.kernel.outcomes import Accepted, Outcome, Rejection, RequestIdReused
from command_server.kernel.ports import (
    Changes,
    EventRow,
    RequestKey,
    RequestRow,
    StoredRequest,
    StoreLocked,
    StreamRow,
)
from command_server.kernel.request_ages import RequestAges
from command_server.kernel.request_hashes import RequestHashes
from command_server.kernel.sealing import BatchKeys
from command_server.kernel.snapshot import FoldedState
from contracts.audit.digests import digest_event
from contracts.envelope import DEFAULT_MAX_PAYLOAD, max_data_bytes
from contracts.personal_data import MAX_OVERHEAD, Part, find_parts, seal_parts
from contracts.sealed_states import seal_state

_encode_json = msgspec.json.Encoder().encode

NEVER = datetime.min.replace(tzinfo=UTC)
"""`updated_at` of a stream without events."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A command with the metadata of its call."""

    kind: CommandType
    command: Any
    caller: str
    request_id: str
    """A UUID as 36 characters in lower case, never parsed: it is only compared, sorted and stored."""
    digest: bytes
    """SHA-256 of the request without its id. A retry has the same one."""
    expected_version: int | None
    on_behalf_of: str | None
    correlation_id: str
    causation_id: str | None
    traceparent: str | None
    arrived_at: float
    """`perf_counter()`, in seconds."""
    deadline: float | None
    """On the same clock; None if the caller set no deadline."""
    size: int = 0
    """Bytes of the request."""
    owners: frozenset[str] | None = None
    """The persons whose objects the command may change; None for everybody's."""

    @property
    def key(self) -> RequestKey:
        """The request's identity."""
        return self.caller, self.request_id


class NotFolded(Exception):
    """A command affects a stream with more events than a transaction may fold; fold it first.

    Args:
        stream: the stream's name.
        base: the latest known state of the stream.
        version: the stream's version.
    """

    def __init__(self, stream: str, base: FoldedState, version: int) -> None:
        super().__init__(f"{stream}: {version - base.version} events to fold")
        self.stream = stream
        self.base = base
        self.version = version


class StreamLocked(StoreLocked):
    """A command affects a stream that another transaction has locked; it was not executed.

    Args:
        stream: the stream's name.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream


class NotLoaded(Exception):
    """A command affects streams that were not loaded with the batch; decide it in the next one."""


@dataclass(slots=True)
class Stream:
    """A stream's state and version within a batch; changes with every decision."""

    type: AggregateType
    version: int
    state: Any
    updated_at: datetime
    is_new: bool
    digest: bytes = b""
    """Of the last event; empty if no event of the stream has one."""
    changed: bool = False
    """Its row is to be written."""
    replaces_snapshot: bool = False
    """Its row has a snapshot of other code that would take long to fold again."""

    def is_visible(self, owners: frozenset[str]) -> bool:
        """Return whether it belongs to one of these persons, or to nobody because it does not exist."""
        return not self.version or self.type.belongs_to(self.state, owners)

    def hide(self) -> "Stream":
        """Return the stream as it would be without events."""
        return Stream(self.type, 0, self.type.initial, NEVER, is_new=True)


@dataclass(slots=True)
class LoadedStreams:
    """The streams of a batch by name, and the errors of those that could not be loaded."""

    streams: dict[str, Stream] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)


class Batch:
    """Decides requests one after the other and collects the rows to write.

    Args:
        loaded: all streams of the requests, as stored.
        requests: the requests among them that are already recorded.
        clock: returns the store's time in UTC.
        ages: the request ids that may be executed.
        max_payload: bytes that the message of an event may have.
        hashes: computes and compares the hashes of recorded requests.
        keys: seal personal data; None to record it in clear.
    """

    def __init__(
        self,
        loaded: LoadedStreams,
        requests: Mapping[RequestKey, StoredRequest],
        clock: Callable[[], datetime],
        ages: RequestAges = RequestAges(),  # noqa: B008 - immutable
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        hashes: RequestHashes = RequestHashes(),  # noqa: B008 - without keys, immutable
        keys: BatchKeys | None = None,
    ) -> None:
        self._streams, self._failures = loaded.streams, loaded.failures
        self._recorded_requests = dict(requests)
        self._clock = clock
        self._ages = ages
        self._max_payload = max_payload
        self._hashes = hashes
        self._keys = keys
        self._drafts: list[_Draft] = []
        """The new events, in the order of their decisions."""
        self._changes = Changes()
        self.times_set_aside: dict[str, timedelta] = {}
        """How far the last event of a stream was ahead of the store's time, for streams that got events."""

    def decide(self, request: Request) -> Outcome:
        """Return the outcome of a request. If this raises, the request has changed nothing.

        Raises:
            RequestIdReused: another request was recorded under this id.
            RequestTooOld, RequestTooNew: the id is not on record, and its age forbids the execution.
            NotLoaded, NotFolded: the request must be decided in a later batch.
            Exception: the domain's code failed.
        """
        if previous := self._recorded_requests.get(request.key):
            if previous.type != request.kind.name:
                raise RequestIdReused
            if not self._hashes.matches(previous.hash, request.digest):
                raise RequestIdReused
            return previous.outcome
        time = self._clock()
        self._ages.check(request.request_id, time)
        streams = self._select_streams(request)
        now, ahead = choose_time(time, streams)
        outcome = self._determine_outcome(request, streams, now, ahead)
        # A retry in the same batch must find this outcome, although it is not stored yet.
        hash_ = self._hashes.compute(request.digest)
        self._recorded_requests[request.key] = StoredRequest(request.kind.name, hash_, outcome)
        self._changes.requests.append(_build_request_row(request, hash_, next(iter(streams)), outcome, now))
        return outcome

    def _select_streams(self, request: Request) -> dict[str, Stream]:
        decider, command = request.kind.decider, request.command
        streams = self._get_streams(request, decider.streams(command))
        if decider.related_streams is no_related_streams:
            return streams
        related_streams = decider.related_streams(
            command, {name: stream.state for name, stream in streams.items()}
        )
        # The loader derived the related streams from states that it read before the lock. Another server, or
        # an earlier command of this batch, may have changed those states, and with them the related streams.
        return streams | self._get_streams(request, related_streams)

    def _get_streams(self, request: Request, names: Sequence[str]) -> dict[str, Stream]:
        """Return streams by name, without events those that must belong to the caller and do not."""
        streams = {name: self._get_stream(name) for name in names}
        if request.owners is not None:
            for name in request.kind.decider.list_owned_streams(request.command):
                if name in streams and not streams[name].is_visible(request.owners):
                    streams[name] = streams[name].hide()
        return streams

    def _is_of_others(self, request: Request, streams: Mapping[str, Stream]) -> bool:
        """Return whether a stream that must belong to the caller does not."""
        if request.owners is None:
            return False
        owned = request.kind.decider.list_owned_streams(request.command)
        return any(name not in streams or streams[name] is not self._streams[name] for name in owned)

    def _get_stream(self, name: str) -> Stream:
        if name in self._failures:
            raise self._failures[name]
        if name not in self._streams:
            raise NotLoaded(name)
        return self._streams[name]

    def look_for_state_keys(self) -> None:
        """Look for the keys that seal the states of changed streams; `BatchKeys` notes the missing ones."""
        for name, stream in self._streams.items():
            if stream.changed and self._keys is not None:
                self._keys.look_for(stream.type.list_subjects(name, stream.state))

    def collect_changes(self) -> Changes:
        """Return the rows that all decisions write; call it once.

        Where data is sealed, the keys that `BatchKeys` misses have been obtained.
        """
        self._changes.events = [self._finish(draft) for draft in self._drafts]
        self._changes.streams = [
            _build_stream_row(name, stream, self._keys)
            for name, stream in self._streams.items()
            if stream.changed
        ]
        self._changes.kept_snapshots = [
            name for name, stream in self._streams.items() if stream.replaces_snapshot
        ]
        return self._changes

    def _determine_outcome(
        self, request: Request, streams: Mapping[str, Stream], now: datetime, ahead: Mapping[str, datetime]
    ) -> Outcome:
        expected, actual = request.expected_version, next(iter(streams.values())).version
        if expected is not None and expected != actual:
            details = {"expected_version": str(expected), "actual_version": str(actual)}
            return Rejection("VERSION_MISMATCH", RejectionKind.VERSION, details)
        states = {name: stream.state for name, stream in streams.items()}
        command, is_of_others = request.command, self._is_of_others(request, streams)
        if is_of_others and request.kind.decider.lookup:
            command = replace(command, **{LOOKUP_FIELD: None})
        try:
            new_events = request.kind.decider.decide(command, states, now)
            if is_of_others and any(new_events.values()):
                raise NotFound("OBJECT_NOT_FOUND")
            self._apply(request, streams, new_events, now, ahead)
        except Rejected as error:
            if is_of_others and any(error.events.values()):
                return Rejection("OBJECT_NOT_FOUND", RejectionKind.NOT_FOUND, {})
            self._apply(request, streams, error.events, now, ahead, error.reason)
            return Rejection(error.reason, error.kind, error.details)
        # Streams that the command looked at and that do not exist are left out, but for its target.
        target = next(iter(streams))
        versions = {name: each.version for name, each in streams.items() if each.version or name == target}
        return Accepted(versions, now)

    def _apply(
        self,
        request: Request,
        streams: Mapping[str, Stream],
        new_events: Mapping[str, Sequence[Any]],
        now: datetime,
        ahead: Mapping[str, datetime],
        rejected: str | None = None,
    ) -> None:
        metadata = _encode_metadata(request, rejected=rejected)
        drafts, results = [], []
        for name, events in new_events.items():
            stream = streams[name]
            state = stream.state
            entry = metadata
            if events and name in ahead:
                entry = _encode_metadata(request, ahead[name], rejected)
            for version, event in enumerate(events, stream.version + 1):
                state = stream.type.evolve(state, event)
                type_name, message = stream.type.convert(event)
                draft = _Draft(
                    stream, name, version, type_name, message, entry, now, self._find_parts(message)
                )
                self._check_event_size(draft)
                drafts.append(draft)
                entry = metadata
            results.append((stream, len(events), state))
        # Nothing below this line can fail, so a request changes all its streams or none.
        self._drafts += drafts
        self.times_set_aside |= {name: ahead[name] - now for name in ahead if new_events.get(name)}
        for stream, count, state in results:
            if count:
                stream.version += count
                stream.state, stream.updated_at, stream.changed = state, now, True

    def _find_parts(self, message: Any) -> list[Part]:
        """Return the parts of an event that are to be sealed.

        Raises:
            Rejected: the data of a person who was forgotten cannot be recorded.
        """
        if self._keys is None:
            return []
        parts = find_parts(message)
        for part in parts:
            if part.dispensable:
                self._keys.look_for([part.subject])
            elif not self._keys.require(part.subject):
                raise Rejected("SUBJECT_FORGOTTEN", subject_id=part.subject)
        return parts

    def _finish(self, draft: "_Draft") -> EventRow:
        """Return the row of a new event; the next link of its stream's chain."""
        if draft.parts and self._keys is not None:
            seal_parts(draft.parts, draft.name, draft.type_name, self._keys.find)
        data, stream = draft.message.SerializeToString(), draft.stream
        stream.digest = digest_event(
            stream.digest, draft.name, draft.version, draft.type_name, draft.now, draft.metadata, data
        )
        return EventRow(
            draft.name, draft.version, draft.type_name, data, draft.metadata, draft.now, stream.digest
        )

    def _check_event_size(self, draft: "_Draft") -> None:
        """Raise Rejected if NATS would not accept an event: the relay could publish no event after it."""
        most = max_data_bytes(self._max_payload, draft.name, draft.type_name, draft.metadata)
        size = draft.message.ByteSize() + MAX_OVERHEAD * len(draft.parts)
        if size > most:
            raise Rejected("EVENT_TOO_LARGE", event=draft.type_name, bytes=size, most=most)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A new event before it is sealed and chained."""

    stream: Stream
    name: str
    """Of the stream."""
    version: int
    type_name: str
    message: Any
    metadata: str
    now: datetime
    parts: Sequence[Part]
    """Those that are to be sealed."""


class _EventMetadata(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """See `RecordedEvent.metadata`; entries without a value are left out."""

    actor: str
    on_behalf_of: str | None = None
    command: str
    correlation_id: str
    causation_id: str
    traceparent: str | None = None
    time_set_aside: str | None = None
    rejected: str | None = None


def _encode_metadata(request: Request, set_aside: datetime | None = None, rejected: str | None = None) -> str:
    """Return the metadata of an event.

    Args:
        request: the command.
        set_aside: the time of the event before it, if this event's time precedes it.
        rejected: the reason with which the command was rejected all the same.
    """
    metadata = _EventMetadata(
        actor=request.caller,
        on_behalf_of=request.on_behalf_of,
        command=request.kind.name,
        correlation_id=request.correlation_id,
        causation_id=request.request_id,
        traceparent=request.traceparent,
        time_set_aside=set_aside.isoformat() if set_aside else None,
        rejected=rejected,
    )
    return _encode_json(metadata).decode()


def _build_stream_row(name: str, stream: Stream, keys: BatchKeys | None) -> StreamRow:
    snapshots = stream.type.snapshots
    state: str | None
    if keys is not None and (subjects := stream.type.list_subjects(name, stream.state)):
        state = seal_state(snapshots.encode(stream.state), name, [keys.find(each) for each in subjects])
    else:
        state = snapshots.encode(stream.state)
    return StreamRow(
        name,
        stream.type.stream_type,
        stream.version,
        stream.updated_at,
        state,
        snapshots.fingerprint,
        stream.is_new,
        stream.digest,
    )


def _build_request_row(
    request: Request, hash_: bytes, stream: str, outcome: Outcome, now: datetime
) -> RequestRow:
    return RequestRow(
        request.caller,
        request.request_id,
        request.kind.name,
        hash_,
        outcome,
        stream,
        request.on_behalf_of,
        request.correlation_id,
        request.causation_id,
        request.traceparent,
        int((perf_counter() - request.arrived_at) * 1e6),
        now,
    )
