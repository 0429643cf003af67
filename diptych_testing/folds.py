"""Compares the rules and projections with the independent fold of `diptych verify`."""

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from typing import Any

from command_server.kernel.context import Context, aggregate_types
from contracts.envelope import RecordedEvent
from contracts.manifest import find_manifests
from contracts.streams import stream_type
from contracts.view_layout import View
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from operations.verify.model import Aggregate, Event
from projector.projection import Projection
from runtime.process.contexts import load_parts


class Contexts:
    """The rules, projections and folds of all installed contexts."""

    def __init__(self) -> None:
        manifests = list(find_manifests().values())
        self.types = aggregate_types(load_parts(manifests, "commands", "CONTEXT", Context))
        projections = load_parts(manifests, "projections", "PROJECTIONS", Projection)
        self.projections: dict[View, Projection[Any]] = {each.view: each for each in projections}
        folds = load_parts(manifests, "verification", "AGGREGATES", Aggregate)
        self.folds = {aggregate.stream_type: aggregate for aggregate in folds}


@cache
def _load_contexts() -> Contexts:
    return Contexts()


def compare(world: World) -> None:
    """Assert that both folds of every stream give the same snapshot, views, history and contributions."""
    types, streams = _load_contexts().types, defaultdict[str, list[RecordedEvent]](list)
    for position, (name, event) in enumerate(world.history):
        type_name, data = types[stream_type(name)].encode(event)
        version, at = len(streams[name]) + 1, NOW + timedelta(seconds=position)
        streams[name].append(RecordedEvent(name, version, type_name, data, at, position, {"actor": "ada"}))
    for name, recorded in streams.items():
        _compare_stream(world, name, recorded)


def _compare_stream(world: World, name: str, recorded: list[RecordedEvent]) -> None:
    contexts = _load_contexts()
    assert stream_type(name) in contexts.folds, f"no AGGREGATES of a context has {stream_type(name)}"
    fold = contexts.folds[stream_type(name)]
    events = [Event(event, fold.events.decode(event)) for event in recorded]
    assert fold.snapshot(events) == json.loads(world.snapshot(name))
    for spec in fold.projections:
        rendered, folded_count, error = contexts.projections[spec.view].fold(spec.view.message(), recorded)
        assert (folded_count, error) == (len(recorded), None)
        assert rendered is not None
        expected = spec.fold(events)
        assert rendered.message == expected
        assert set(rendered.entries) == set(spec.indexes(expected))
        assert dict(rendered.columns) == spec.columns(expected)
        assert set(rendered.change_feeds) == set(spec.change_feeds(expected))
        assert _to_numbers(rendered.contributions) == sorted(spec.contributions(expected))
        if spec.history is not None:
            entries = list(spec.history(events))
            entry_type = type(entries[0])
            assert [entry_type.FromString(data) for _, data in rendered.history_entries] == entries
            assert [version for version, _ in rendered.history_entries] == [
                event.recorded.version for event in events
            ]
            contribute = spec.event_contributions or _no_contributions
            contributions = sorted(each for entry in entries for each in contribute(entry))
            assert contributions == _to_numbers(rendered.event_contributions)


def _to_numbers(contributions: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, int]]:
    return sorted((key, name, int(amount)) for key, name, amount in contributions)


def _no_contributions(_: Any) -> list[tuple[str, str, int]]:
    return []
