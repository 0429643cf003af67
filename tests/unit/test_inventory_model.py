"""Inventory does what a plain model says, and what is derived of it is what two independent folds say."""

import json
from collections import defaultdict
from datetime import timedelta
from typing import Any

from diptych.inventory.v1 import types_pb2 as views
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from hypothesis import settings

from command_server.contexts.inventory import CONTEXT
from command_server.kernel.context import aggregate_types
from operations.verify import inventory
from operations.verify.model import Event
from projector.__main__ import PROJECTIONS
from runtime.envelope import RecordedEvent
from runtime.streams import stream_type
from runtime.views import View
from tests.support.inventory_model import Machine
from tests.support.scenario import NOW

TYPES = aggregate_types((CONTEXT,))
FOLDS = {aggregate.stream_type: aggregate for aggregate in inventory.AGGREGATES}
OF: dict[View, Any] = {projection.view: projection for projection in PROJECTIONS}


class Compared(Machine):
    """Compares, at the end, every stream's snapshot and views with the independent fold."""

    def teardown(self) -> None:
        super().teardown()
        streams: dict[str, list[RecordedEvent]] = defaultdict(list)
        for position, (name, event) in enumerate(self.world.history):
            kind, data = TYPES[stream_type(name)].encode(event)
            version, at = len(streams[name]) + 1, NOW + timedelta(seconds=position)
            streams[name].append(RecordedEvent(name, version, kind, data, at, position, {"actor": "ada"}))
        for name, recorded in streams.items():
            self.compare(name, recorded)

    def compare(self, name: str, recorded: list[RecordedEvent]) -> None:
        fold = FOLDS[stream_type(name)]
        events = [Event(one, _parsed(one)) for one in recorded]
        assert fold.snapshot(events) == json.loads(self.world.snapshot(name))
        for reading in fold.readings:
            rendered, done, error = OF[reading.view].fold(reading.view.message(), recorded)
            assert (done, error) == (len(recorded), None)
            assert rendered is not None
            expected = reading.fold(events)
            assert rendered.message == expected
            assert set(rendered.entries) == set(reading.indexes(expected))
            assert dict(rendered.columns) == reading.columns(expected)
            assert set(rendered.announced) == set(reading.changes(expected))
            if (entry := reading.entry) is not None:
                told = [(version, views.StockMovement.FromString(data)) for version, data in rendered.told]
                assert told == [(event.recorded.version, entry(event)) for event in events]


def _parsed(event: RecordedEvent) -> Any:
    return GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)


Compared.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestInventoryModel = Compared.TestCase
