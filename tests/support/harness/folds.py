"""Compares the rules and projections with the independent fold of `diptych verify`."""

import json
from collections import defaultdict
from datetime import timedelta
from typing import Any

from command_server.kernel.context import aggregate_types
from contracts.envelope import RecordedEvent
from contracts.streams import stream_type
from contracts.view_layout import View
from operations.verify.model import Event
from tests.support.harness.contexts import AGGREGATES, CONTEXTS, PROJECTIONS
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World

TYPES = aggregate_types(CONTEXTS)
FOLDS = {aggregate.stream_type: aggregate for aggregate in AGGREGATES}
PROJECTIONS_BY_VIEW: dict[View, Any] = {projection.view: projection for projection in PROJECTIONS}


def compare(world: World) -> None:
    """Assert that both folds of every stream give the same snapshot, views, history and contributions."""
    streams: dict[str, list[RecordedEvent]] = defaultdict(list)
    for position, (name, event) in enumerate(world.history):
        type_name, data = TYPES[stream_type(name)].encode(event)
        version, at = len(streams[name]) + 1, NOW + timedelta(seconds=position)
        streams[name].append(RecordedEvent(name, version, type_name, data, at, position, {"actor": "ada"}))
    for name, recorded in streams.items():
        _compare_stream(world, name, recorded)


def _compare_stream(world: World, name: str, recorded: list[RecordedEvent]) -> None:
    fold = FOLDS[stream_type(name)]
    events = [Event(event, fold.events.decode(event)) for event in recorded]
    assert fold.snapshot(events) == json.loads(world.snapshot(name))
    for spec in fold.projections:
        rendered, folded_count, error = PROJECTIONS_BY_VIEW[spec.view].fold(spec.view.message(), recorded)
        assert (folded_count, error) == (len(recorded), None)
        assert rendered is not None
        expected = spec.fold(events)
        assert rendered.message == expected
        assert set(rendered.entries) == set(spec.indexes(expected))
        assert dict(rendered.columns) == spec.columns(expected)
        assert set(rendered.change_feeds) == set(spec.change_feeds(expected))
        if spec.history is not None:
            entries = spec.history(events)
            entry_type = type(entries[0])
            assert [entry_type.FromString(data) for _, data in rendered.history_entries] == entries
            assert [version for version, _ in rendered.history_entries] == [
                event.recorded.version for event in events
            ]
            contribute = spec.event_contributions or _no_contributions
            contributions = sorted(each for entry in entries for each in contribute(entry))
            assert contributions == sorted(
                (key, name, int(amount)) for key, name, amount in rendered.event_contributions
            )


def _no_contributions(_: Any) -> list[tuple[str, str, int]]:
    return []
