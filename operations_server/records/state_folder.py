"""The state and the views of an aggregate, folded from its events as of a version or a time (time travel).

How it works. The version is found first; for a time, by bisection over the stream's versions. The state is
folded from the latest snapshot of this code that is not beyond that version, the views from the first event.
Events are read in chunks and folded in slices, between which other questions are answered. A part
that cannot be folded, or not in time, has its error in the response, and the others are returned.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol
from google.protobuf.json_format import MessageToDict

from command_server.kernel.context import AggregateType, Context, aggregate_types
from command_server.kernel.ports import StoredEvent
from command_server.kernel.snapshot import FoldedState
from contracts import streams
from contracts.envelope import RecordedEvent, parse_metadata
from contracts.manifest import Manifest
from contracts.personal_fields import list_personal_names, mask_personal, mask_state
from operations_server.records.content import Content
from operations_server.records.database import Database
from operations_server.records.event_filter import read_time
from operations_server.records.event_messages import make_printable
from operations_server.records.state_json import parse_state
from operations_server.records.versions import find_version
from projector.projection import Projection
from runtime.process.contexts import load_parts
from runtime.skipped_events import name_projection

CHUNK = 500
"""Events that are read at once."""
MAX_READ_BYTES = 2_000_000
"""Bytes of events that are read at once, beside the last of them."""
SLICE = 20
"""Events that are folded before the event loop runs again."""
MAX_TIME = 20.0
"""Seconds of a fold; less if the call's deadline is earlier."""
MARGIN = 0.5
"""Seconds before the call's deadline at which folding ends."""
STATE_SHARE = 0.5
"""The part of the time that the state may take."""
MAX_FOLDS = 2
"""Folds at the same time."""
MAX_BYTES = 3_000_000
"""Bytes of a state and its views in a response."""

READ_SNAPSHOTS = """
SELECT state_version, state::text FROM streams WHERE id = $1 AND fingerprint = $2 AND state_version <= $3
UNION ALL
SELECT version, state::text FROM snapshots WHERE stream = $1 AND fingerprint = $2 AND version <= $3
ORDER BY 1 DESC
"""
READ_SKIPS = "SELECT consumer, version FROM skipped_events WHERE stream = $1"
READ_CHUNK = """
SELECT version, type, data, position, recorded_at, metadata FROM (
  SELECT version, type, data, position, recorded_at, metadata,
    sum(octet_length(data)) OVER rows_before - octet_length(data) AS bytes_before
  FROM (
    SELECT version, type, data, position, recorded_at, metadata::text AS metadata FROM events
    WHERE stream = $1 AND version > $2 AND version <= $3 ORDER BY version LIMIT $4
  ) first
  WINDOW rows_before AS (ORDER BY version ROWS UNBOUNDED PRECEDING)
) e WHERE bytes_before < $5 ORDER BY version
"""


class OutOfTime(Exception):
    """The time for a fold has passed."""


class StateFolder:
    """Folds the states and views of aggregates.

    Args:
        database: its connections.
        manifests: the contexts.
    """

    def __init__(self, database: Database, manifests: Sequence[Manifest]) -> None:
        self._database = database
        contexts = load_parts(manifests, "commands", "CONTEXT", Context)
        self._aggregates = aggregate_types(contexts)
        self._projections: dict[str, list[Projection[Any]]] = {}
        for projection in load_parts(manifests, "projections", "PROJECTIONS", Projection):
            for stream_type in projection.view.source_streams:
                self._projections.setdefault(stream_type, []).append(projection)
        self._personal_names = {
            stream_type: names
            for context in contexts
            for stream_type, names in find_personal_names(context, self._projections).items()
        }
        self._places = asyncio.Semaphore(MAX_FOLDS)

    async def fold(
        self, request: protocol.GetStateRequest, remaining: float | None, content: Content = Content.MASKED
    ) -> protocol.GetStateResponse:
        """Return the state and the views of a stream.

        Args:
            request: names the stream, and the version or the time.
            remaining: seconds until the call's deadline; None without one.
            content: how much of the state and the views is shown.

        Raises:
            RpcError: `STREAM_NOT_FOUND`, or there was no such version or time.
        """
        began = monotonic()
        time_left = MAX_TIME if remaining is None else min(MAX_TIME, remaining - MARGIN)
        async with self._places:
            version, recorded_at = await find_version(
                self._database, request.stream, request.version, read_time(request, "time")
            )
            response = protocol.GetStateResponse(version=version)
            response.record_time.FromDatetime(recorded_at)
            if content is not Content.NONE:
                await self._add_state(response, request.stream, began + time_left * STATE_SHARE, content)
                await self._add_views(response, request.stream, began + time_left, content)
        return response

    async def _add_state(
        self, response: protocol.GetStateResponse, stream: str, deadline: float, content: Content
    ) -> None:
        aggregate = self._aggregates.get(streams.stream_type(stream))
        if aggregate is None:
            response.state_error = "no context that is installed here has such aggregates"
            return
        try:
            folded = await self._begin(aggregate, stream, response.version)
            state = folded.state
            async for events in self._read_slices(stream, folded.version, response.version, deadline):
                for event in events:
                    state = aggregate.apply(state, StoredEvent(event.type, event.data))
            text = aggregate.snapshots.encode(state)
            _check_size(len(text))
            fields = parse_state(text)
            if content is Content.MASKED:
                fields = mask_state(fields, self._personal_names[aggregate.stream_type])
            response.state.SetInParent()
            response.state.update(fields)
            _check_size(response.ByteSize())
        except Exception as error:  # any event may be one that this code cannot fold
            response.ClearField("state")
            response.state_error = _describe(error)

    async def _begin(self, aggregate: AggregateType, stream: str, version: int) -> FoldedState:
        """Return the latest state that is kept and readable, the initial one if there is none."""
        codec = aggregate.snapshots
        for kept, state in await self._database.fetch(READ_SNAPSHOTS, stream, codec.fingerprint, version):
            with suppress(Exception):  # whatever is stored there, the events decide
                return FoldedState(codec.decode(state), kept)
        return FoldedState(aggregate.initial, 0)

    async def _add_views(
        self, response: protocol.GetStateResponse, stream: str, deadline: float, content: Content
    ) -> None:
        projections = self._projections.get(streams.stream_type(stream), [])
        views = {each.view.projection: each.view.message() for each in projections}
        errors: dict[str, str] = {}
        try:
            skips: dict[str, frozenset[int]] = {}
            for consumer, version in await self._database.fetch(READ_SKIPS, stream):
                skips[consumer] = skips.get(consumer, frozenset()) | {version}
            async for events in self._read_slices(stream, 0, response.version, deadline):
                _apply(projections, views, errors, events, skips)
        except Exception as error:
            errors = {name: _describe(error) for name in views} | errors
        for name, view in views.items():
            if name in errors:
                continue
            try:
                _check_size(view.ByteSize())
                fields = MessageToDict(view, preserving_proto_field_name=True)
                if content is Content.MASKED:
                    mask_personal(view, fields)
                response.views[name].update(fields)
                _check_size(response.ByteSize())
            except ValueError as error:  # of its size, or a number that a Struct cannot hold
                response.views.pop(name, None)
                errors[name] = _describe(error)
        response.view_errors.update(errors)

    async def _read_slices(
        self, stream: str, after: int, until: int, deadline: float
    ) -> AsyncIterator[Sequence[RecordedEvent]]:
        """Yield the events of a stream in slices, and let the event loop run in between.

        Raises:
            OutOfTime: the deadline has passed.
        """
        while after < until:
            rows = await self._database.fetch(READ_CHUNK, stream, after, until, CHUNK, MAX_READ_BYTES)
            for at in range(0, len(rows), SLICE):
                if monotonic() > deadline:
                    raise OutOfTime(f"the time has passed at version {after + at} of {until}")
                yield await self._database.open([_build_event(stream, row) for row in rows[at : at + SLICE]])
                await asyncio.sleep(0)
            after = rows[-1]["version"]


def find_personal_names(
    context: Context, projections: Mapping[str, Sequence[Projection[Any]]]
) -> dict[str, frozenset[str]]:
    """Return the names of the personal fields of a context's events and views, by its stream types."""
    stream_types = list(aggregate_types([context]))
    views = [each.view.message.DESCRIPTOR for type_ in stream_types for each in projections.get(type_, [])]
    return dict.fromkeys(stream_types, list_personal_names([*context.events.descriptors, *views]))


def _apply(
    projections: Sequence[Projection[Any]],
    views: dict[str, Any],
    errors: dict[str, str],
    events: Sequence[RecordedEvent],
    skips: Mapping[str, frozenset[int]],
) -> None:
    """Apply events to each view; the first error of a view ends its fold.

    Args:
        projections: of the stream.
        views: by projection.
        errors: by projection.
        events: the next ones.
        skips: the versions that a projection skips, by consumer.
    """
    for projection in projections:
        name = projection.view.projection
        if name in errors:
            continue
        skipped = skips.get(name_projection(name), frozenset())
        rendered, count, error = projection.fold(views[name], events, skipped=skipped)
        if rendered is not None:
            views[name] = rendered.message
        if error is not None:
            errors[name] = f"version {events[count].version}: {_describe(error)}"


def _build_event(stream: str, row: Any) -> RecordedEvent:
    metadata: Mapping[str, str] = parse_metadata(row["metadata"])
    return RecordedEvent(
        stream, row["version"], row["type"], row["data"], row["recorded_at"], row["position"], metadata
    )


def _check_size(size: int) -> None:
    """Check a state, a view or a response; the former two before a Struct is made of them, which takes time.

    Raises:
        ValueError: it is too large for a response.
    """
    if size > MAX_BYTES:
        raise ValueError(f"with {size} bytes too large for a response")


def _describe(error: Exception) -> str:
    return make_printable(f"{type(error).__name__}: {error}")
