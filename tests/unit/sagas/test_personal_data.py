"""Sagas keep nothing of the personal data in the events that they receive, neither in states nor in steps."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from process_manager.saga import EventReceived, Saga
from tests.support.builders.personal_events import NAME, has_personal_fields, make_event
from tests.support.harness.contexts import SAGAS

T = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = "OrderPlaced"
"""An event that others need before them."""
RECEIVED = [
    pytest.param(saga, subscription, kind, id=f"{saga.name} {kind.DESCRIPTOR.name}")
    for saga in SAGAS
    for subscription in saga.subscribes_to
    for kind in (subscription.events.newest(name) for name in sorted(subscription.events.names))
    if has_personal_fields(kind)
]


@pytest.mark.parametrize(("saga", "subscription", "kind"), RECEIVED)
def test_a_saga_keeps_nothing_personal(saga: Saga[Any], subscription: Any, kind: Any) -> None:
    state, kept = saga.initial, list[bytes]()
    first = subscription.events.find_newest(FIRST)
    for version, each in enumerate([*([first] if first else []), kind], 1):
        event = subscription.events.decode(make_event(each, version))
        reaction = saga.react(state, EventReceived(event, version, "a.b.c", T))
        state = reaction.state
        kept += [msgspec.json.encode(state), *(send.request.SerializeToString() for send in reaction.send)]
    assert not [each for each in kept if NAME.encode() in each]
