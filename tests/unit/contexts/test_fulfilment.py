"""Recorded fulfilments: their order, their view, and the independent fold."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from diptych.fulfilment.v1 import events_pb2 as events
from diptych.fulfilment.v1.types_pb2 import Fulfilment as View

from command_server.contexts.fulfilment import CONTEXT
from command_server.contexts.fulfilment.domain.fulfilment import RecordFulfilment, State
from contracts.envelope import RecordedEvent
from diptych_testing import folds
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from operations.verify.checks.fulfilment_record import fold_fulfilment
from operations.verify.model import Event
from projector.projections.fulfilment.fulfilment import FULFILMENTS, index_entries
from tests.support.models.diagrams import DOCS

FIRST = RecordFulfilment("o-1", 1, 1, State.PREPARING, "", "", "", "", "", "", 900, "ada")
CONFIRMED = replace(
    FIRST, number=2, order_version=2, state=State.CONFIRMED, waiting_for="shipment", max_seconds=0
)
BLOCKED = replace(
    CONFIRMED, number=3, order_version=3, state=State.SHIPPED, blocked_reason="capture was rejected"
)


def test_a_record_that_is_overtaken_or_repeated_changes_nothing() -> None:
    world = World(*CONTEXT.deciders)
    world.execute(CONFIRMED)
    world.assert_unchanged(CONFIRMED)
    world.assert_unchanged(FIRST)
    world.execute(BLOCKED)
    world.assert_snapshots_decode()


def test_a_record_without_a_state_is_refused() -> None:
    world = World(*CONTEXT.deciders)
    world.assert_rejected(replace(FIRST, state=State.UNSPECIFIED), "FIELD_INVALID", field="state")


def test_all_folds_are_the_same_at_every_step() -> None:
    world = World(*CONTEXT.deciders)
    for command in (FIRST, CONFIRMED, BLOCKED, replace(BLOCKED, number=4, blocked_reason="", max_seconds=60)):
        world.execute(command)
        world.now += timedelta(minutes=1)
        folds.compare(world)


def test_the_diagram_in_the_docs_has_all_states() -> None:
    arrows = re.findall(r"^    (\S+) --> ([A-Z_]+): ", (DOCS / "fulfilment.md").read_text(), re.MULTILINE)
    states = {state.name for state in State} - {"UNSPECIFIED"}
    assert {state for arrow in arrows for state in arrow} == states | {"[*]"}
    assert {f"STATE_{state.name}": state.value for state in State} == dict(View.State.items())


def test_the_customer_of_a_later_record_completes_what_an_earlier_release_began() -> None:
    world = World(*CONTEXT.deciders)
    world.execute(replace(FIRST, customer_id=""), CONFIRMED, replace(BLOCKED, customer_id=""))
    folds.compare(world)
    view = fold(
        *(events.FulfilmentRecorded(state=View.STATE_SHIPPED, customer_id=id_) for id_ in ("", "ada", ""))
    )
    assert view.customer_id == "ada"


def fold(*records: events.FulfilmentRecorded) -> View:
    for number, record in enumerate(records, 1):
        record.number, record.order_id = number, "o-1"
        record.recorded_at.FromDatetime(NOW + timedelta(minutes=number))
    recorded = [
        RecordedEvent("s", n, each.DESCRIPTOR.full_name, each.SerializeToString(), NOW, n, {})
        for n, each in enumerate(records, 1)
    ]
    rendered, _, error = FULFILMENTS.fold(View(), recorded)
    assert (rendered is not None, error) == (True, None)
    return rendered.message  # type: ignore[union-attr]


def minutes_due(view: View) -> float | None:
    """Return the minutes from the start of the state to the due time."""
    if not view.HasField("due_time"):
        return None
    return (view.due_time.ToDatetime() - view.state_start_time.ToDatetime()) / timedelta(minutes=1)


def test_a_fulfilment_is_due_by_the_time_of_its_state() -> None:
    def preparing(**fields: Any) -> events.FulfilmentRecorded:
        return events.FulfilmentRecorded(state=View.STATE_PREPARING, max_seconds=120, **fields)

    assert minutes_due(fold(preparing())) == 2
    assert minutes_due(fold(preparing(), preparing(order_version=2))) == 2
    assert minutes_due(fold(preparing(), preparing(blocked_reason="x"))) == 0
    assert minutes_due(fold(preparing(), events.FulfilmentRecorded(state=View.STATE_CONFIRMED))) is None


def test_lists_begin_with_the_longest_overdue_and_end_with_the_latest_that_is_never_due() -> None:
    def member(due: int, begun: int) -> str:
        view = View(order_id="o-1", state=View.STATE_CONFIRMED)
        view.begin_time.FromDatetime(NOW + timedelta(minutes=begun))
        if due:
            view.due_time.FromDatetime(NOW + timedelta(minutes=due))
        return index_entries(view)[0][1]

    members = [member(1, 5), member(9, 1), member(0, 2), member(0, 3)]
    assert sorted(members, reverse=True) == members


def test_records_whose_numbers_do_not_rise_cannot_be_folded() -> None:
    records = [events.FulfilmentRecorded(number=number) for number in (2, 2)]
    read = [
        Event(RecordedEvent("s", n, record.DESCRIPTOR.full_name, b"", NOW, n, {}), record)
        for n, record in enumerate(records, 1)
    ]
    with pytest.raises(ValueError, match="do not rise"):
        fold_fulfilment(read)
