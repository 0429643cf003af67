"""What was recorded once is understood for ever: the bytes of every version of every event."""

import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from command_server.__main__ import CONTEXTS
from command_server.kernel.context import aggregate_types
from command_server.kernel.ports import StoredEvent
from tests.contract import recorded
from tests.contract.recorded import Recorded

RECORDED = recorded.read()
AGGREGATES = aggregate_types(CONTEXTS)

each = pytest.mark.parametrize("event", RECORDED, ids=lambda event: event.type)


def test_every_version_of_every_event_is_on_record() -> None:
    known = {kind.DESCRIPTOR.full_name for context in CONTEXTS for kind in recorded.event_messages(context)}
    assert known == {event.type for event in RECORDED}, (
        "python -m tests.contract.recorded writes what is missing"
    )


@each
def test_recorded_bytes_say_what_they_said(event: Recorded) -> None:
    message = GetMessageClass(Default().FindMessageTypeByName(event.type)).FromString(event.data)
    assert MessageToDict(message, preserving_proto_field_name=True) == event.message


@each
def test_the_domain_understands_recorded_bytes(event: Recorded) -> None:
    assert recorded.as_domain(AGGREGATES, StoredEvent(event.type, event.data)) == event.domain
