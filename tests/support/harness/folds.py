"""Every stream of a world, its snapshot and views, compared with what the independent fold makes of it."""

import json
from collections import defaultdict
from datetime import timedelta
from typing import Any

from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from command_server.__main__ import CONTEXTS
from command_server.kernel.context import aggregate_types
from contracts.envelope import RecordedEvent
from contracts.streams import stream_type
from contracts.view_layout import View
from operations.verify.model import Event
from operations.verify.verification import AGGREGATES
from projector.__main__ import PROJECTIONS
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World

TYPES = aggregate_types(CONTEXTS)
FOLDS = {aggregate.stream_type: aggregate for aggregate in AGGREGATES}
OF: dict[View, Any] = {projection.view: projection for projection in PROJECTIONS}


def compare(world: World) -> None:
    """Assert that both folds of all that has happened are the same."""
    streams: dict[str, list[RecordedEvent]] = defaultdict(list)
    for position, (name, event) in enumerate(world.history):
        kind, data = TYPES[stream_type(name)].encode(event)
        version, at = len(streams[name]) + 1, NOW + timedelta(seconds=position)
        streams[name].append(RecordedEvent(name, version, kind, data, at, position, {"actor": "ada"}))
    for name, recorded in streams.items():
        _compare(world, name, recorded)


def _compare(world: World, name: str, recorded: list[RecordedEvent]) -> None:
    fold = FOLDS[stream_type(name)]
    events = [Event(one, _parsed(one)) for one in recorded]
    assert fold.snapshot(events) == json.loads(world.snapshot(name))
    for reading in fold.readings:
        rendered, done, error = OF[reading.view].fold(reading.view.message(), recorded)
        assert (done, error) == (len(recorded), None)
        assert rendered is not None
        expected = reading.fold(events)
        assert rendered.message == expected
        assert set(rendered.entries) == set(reading.indexes(expected))
        assert dict(rendered.columns) == reading.columns(expected)
        assert set(rendered.change_feeds) == set(reading.changes(expected))
        if reading.log is not None:
            log = reading.log(events)
            kind = type(log[0])
            assert [kind.FromString(data) for _, data in rendered.history_entries] == log
            assert [version for version, _ in rendered.history_entries] == [
                event.recorded.version for event in events
            ]
            event_contributions = sorted(
                added for entry in log for added in (reading.tallies or _none)(entry)
            )
            assert (
                sorted((key, name, int(amount)) for key, name, amount in rendered.event_contributions)
                == event_contributions
            )


def _none(_: Any) -> list[tuple[str, str, int]]:
    return []


def _parsed(event: RecordedEvent) -> Any:
    return GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)
