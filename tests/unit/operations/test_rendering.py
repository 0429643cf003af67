"""Pages of the command line: what they say of a system, and that they fit 80 columns with long names."""

from collections.abc import Sequence
from typing import Any

import pytest
from diptych.operations.v1 import dead_letters_pb2, explanation_pb2, records_pb2, status_pb2
from diptych.operations.v1.operations_service_pb2 import GetStateResponse
from diptych.sagas.v1 import types_pb2 as sagas_v1
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from operations.rendering import dead_letters, projections, records, sagas
from operations.rendering.layout import Line
from operations.rendering.status import render_status

WIDTH = 80
LONG = "a_name_that_is_longer_than_any_column_and_any_line_of_ours_" * 3 + "\x1b[2J\nforged"
FIGURES = (
    "command success rate",
    "query response time",
    "event processing lag",
    "failed events",
    "read model staleness",
)


def make_status(**changes: Any) -> status_pb2.Status:
    """Return a healthy status."""
    status = status_pb2.Status(
        healthy=True,
        processes=[status_pb2.Process(name="relay", address="127.0.0.1:50053", health="SERVING")],
        stores=[status_pb2.Store(name="Redis", description="2 MB used")],
        outbox=status_pb2.Outbox(leader="relay-1"),
        projections=[status_pb2.Projection(name="ordering.order", ready=True, build_progress=1.0)],
        sagas=[status_pb2.SagaCounts(saga="fulfilment.fulfilment", open=3)],
        figures=[status_pb2.HealthFigure(name=name, unit="s", threshold=1, good=True) for name in FIGURES],
    )
    status.MergeFrom(status_pb2.Status(**changes))
    return status


def find_line(lines: Sequence[Line], start: str) -> Line:
    return next(line for line in lines if line.text.startswith(start))


def fill(message: Any, depth: int = 0) -> Any:
    """Return a message with a long name in each text, and two of each list."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_STRING and field.is_repeated:
            value.extend([LONG, LONG])
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, LONG)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            for part in [value.add(), value.add()] if field.is_repeated else [value]:
                fill_part(part, depth)
        elif field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32):
            setattr(message, field.name, 2**31 - 1)
    return message


def fill_part(part: Any, depth: int) -> None:
    name = part.DESCRIPTOR.full_name
    if name == "google.protobuf.Struct":
        part.update({LONG: [LONG, {LONG: 1.5}]})
    elif name.startswith("google.protobuf."):
        part.seconds = 1_800_000_000
    elif depth < 3:
        fill(part, depth + 1)


def test_the_first_line_of_a_healthy_system_is_ok() -> None:
    lines = render_status(make_status(), WIDTH)
    assert lines[0] == Line("OK", "green")
    assert {line.colour for line in lines[1:]} == {""}
    assert find_line(lines, "relay").text == "relay                  SERVING at 127.0.0.1:50053"
    assert find_line(lines, "outbox").text.endswith("nothing pending, relay-1 leads")
    assert find_line(lines, "ordering.order").text.endswith("ready, up to date")
    assert find_line(lines, "fulfilment").text.endswith(
        "3 open, 0 overdue, 0 blocked, 0 denied, 0 unreadable"
    )


def test_the_first_line_is_otherwise_the_gravest_finding() -> None:
    findings = ["Redis cannot be reached", "no relay leads"]
    lines = render_status(make_status(findings=findings), WIDTH)
    status = make_status(findings=findings)
    status.healthy = False
    lines = render_status(status, WIDTH)
    assert [line.text for line in lines[:3]] == [*findings, ""]
    assert {line.colour for line in lines[:2]} == {"red"}


def test_a_status_that_is_not_healthy_is_never_ok() -> None:
    lines = render_status(status_pb2.Status(healthy=False), WIDTH)
    assert lines[0].text == "not healthy"


def test_the_five_figures_have_their_names_values_and_thresholds() -> None:
    rate = status_pb2.HealthFigure(name=FIGURES[0], value=98.5, threshold=99.9, unit="%")
    time = status_pb2.HealthFigure(name=FIGURES[1], value=12.25, threshold=100, unit="ms", good=True)
    lag = status_pb2.HealthFigure(name=FIGURES[2], threshold=1, unit="s", good=True)
    failed = status_pb2.HealthFigure(name=FIGURES[3], value=2, threshold=0, unit="events")
    failed.last_bad_time.FromJsonString("2026-01-01T12:00:00Z")
    stale = status_pb2.HealthFigure(name=FIGURES[4], threshold=5, unit="s", error="TimeoutError")
    status = status_pb2.Status(healthy=True, figures=[rate, time, lag, failed, stale])
    lines = render_status(status, WIDTH)
    assert find_line(lines, FIGURES[0]) == Line(f"{FIGURES[0]}  98.5 % (at least 99.9 %)", "red")
    text = " ".join(" ".join(line.text for line in lines).split())
    assert "2 events (at most 0 events), the last bad measurement at 2026-01-01T12:00:00.000Z" in text
    assert find_line(lines, FIGURES[4]) == Line(f"{FIGURES[4]}  unknown: TimeoutError (at most 5 s)", "red")
    assert find_line(lines, FIGURES[1]) == Line(f"{FIGURES[1]}   12.25 ms (at most 100 ms)")
    assert find_line(lines, FIGURES[2]) == Line(f"{FIGURES[2]}  nothing to measure (at most 1 s)")


def test_processes_that_no_longer_report_are_seen_beside_those_that_live() -> None:
    relays = status_pb2.ProcessInstances(kind="relay")
    for second in (10, 20):
        relays.living.add().start_time.seconds = second
    killed = status_pb2.ProcessInstances(kind="projector")
    status = make_status(instances=[relays, killed])
    assert find_line(render_status(status, WIDTH), "relay instances") == Line(
        "relay instances        2 living, started 1970-01-01T00:00:10.000Z to"
    )
    for each in status.instances:
        each.gone.add().report_time.seconds = 30
    lines = render_status(status, 200)
    assert find_line(lines, "relay instances").text.endswith(
        "1970-01-01T00:00:20.000Z; 1 no longer reports, the last one since 1970-01-01T00:00:30.000Z"
    )
    assert find_line(lines, "relay instances").colour == "yellow"
    assert find_line(lines, "projector instances").colour == "red"
    assert lines[0] == Line("OK", "green")


def test_parts_that_need_attention_are_coloured_and_say_why() -> None:
    behind = status_pb2.Projection(
        name="x.y", events_behind=1200, oldest_unapplied_age=Duration(seconds=185), build_progress=0.456
    )
    status = status_pb2.Status(
        processes=[status_pb2.Process(name="projector", address="a:1", health="UNAVAILABLE", reason="gone")],
        stores=[status_pb2.Store(name="NATS", error="no answer in time")],
        outbox=status_pb2.Outbox(pending_events=1, oldest_age=Duration(nanos=400_000_000)),
        projections=[behind],
        silent_targets=[status_pb2.SilentTarget(service="s", waiting_steps=2, error="refused")],
    )
    status.read_time.seconds, status.silent_targets[0].silent_since.seconds = 100, 88
    lines = render_status(status, WIDTH)
    texts = " ".join(" ".join(line.text.split()) for line in lines)
    assert {line.colour for line in lines if line.text} == {"red"}
    assert "projector UNAVAILABLE at a:1: gone" in texts
    assert "NATS no answer in time" in texts
    assert "outbox 1 event pending, the oldest for 400 ms, no relay leads" in texts
    assert "x.y not ready: queries answer VIEW_REBUILDING, 45 % built, 1,200 events behind" in texts
    assert "the oldest for 3 min 5 s" in texts
    assert "s does not answer for 12 s, waiting: 2 steps: refused" in texts


def test_a_state_that_cannot_be_folded_is_not_shown_as_an_empty_one() -> None:
    response = GetStateResponse(version=3, state_error="DecodeError: x", view_errors={"ordering.order": "no"})
    response.views["ordering.order_history"].update({"order_id": "o-1"})
    lines = records.render_state("ordering.order.o-1", response, WIDTH)
    texts = [line.text for line in lines if line.text]
    assert texts[1:5] == ["state", "  not known: DecodeError: x", "ordering.order", "  not known: no"]
    assert [line.text for line in lines if line.colour == "red"] == [texts[2], texts[4]]
    assert "order_history" in texts[5]


def test_a_lag_above_the_alert_or_unknown_is_coloured() -> None:
    age = Duration(seconds=6)
    lagging = status_pb2.Projection(
        name="a.b", ready=True, build_progress=1, events_behind=3, oldest_unapplied_age=age
    )
    lagging.partitions.add(number=4, holder="p-1", oldest_unapplied_age=age)
    unknown = status_pb2.Projection(name="c.d", error="Redis: no answer in time")
    fine = status_pb2.Projection(name="e.f", ready=True, build_progress=1)
    built = status_pb2.Projection(name="g.h", build_progress=0.5)
    lines = projections.render_lag([lagging, unknown, fine, built], 5.0, True, WIDTH)
    assert [(" ".join(line.text.split()), line.colour) for line in lines] == [
        ("a.b ready, 3 events behind, the oldest for 6.0 s", "red"),
        ("partition 4 0 events behind, the oldest for 6.0 s; held by p-1", "red"),
        ("c.d Redis: no answer in time", "red"),
        ("e.f ready, up to date", ""),
        ("g.h not ready: queries answer VIEW_REBUILDING, 50 % built", "red"),
    ]
    assert projections.is_above(unknown, None)
    assert not projections.is_above(built, None)
    assert not projections.is_above(lagging, 6.0)


def test_an_event_shows_the_time_that_was_set_aside_before_it() -> None:
    event = records_pb2.Event(id="a.b.c@2")
    assert not any("set aside" in line.text for line in records.render_events([event], WIDTH))
    event.time_set_aside.FromJsonString("2026-01-01T15:00:00Z")
    note = "the previous event's time was wrong and is set aside: 2026-01-01T15:00:00.000Z"
    text = " ".join(line.text.strip() for line in records.render_events([event], WIDTH))
    assert note in text


PAGES = [
    (status_pb2.Status, lambda message: render_status(message, WIDTH)),
    (status_pb2.Projection, lambda message: projections.render_projections([message], WIDTH)),
    (status_pb2.Projection, lambda message: projections.render_lag([message], 1.0, True, WIDTH)),
    (dead_letters_pb2.DeadLetterDetails, lambda message: dead_letters.render_letter_details(message, WIDTH)),
    (dead_letters_pb2.DeadLetter, lambda message: dead_letters.render_letters([message], WIDTH)),
    (records_pb2.Request, lambda message: records.render_requests([message], WIDTH)),
    (records_pb2.RefusedCall, lambda message: records.render_refused_calls([message], WIDTH)),
    (records_pb2.Event, lambda message: records.render_events([message], WIDTH)),
    (GetStateResponse, lambda message: records.render_state(LONG, message, WIDTH)),
    (explanation_pb2.Explanation, lambda message: records.render_explanation(message, WIDTH)),
    (sagas_v1.Saga, lambda message: sagas.render_sagas([message], WIDTH)),
    (sagas_v1.Saga, lambda message: sagas.render_saga(message, WIDTH)),
]


@pytest.mark.parametrize(("kind", "render"), PAGES)
@pytest.mark.parametrize("is_full", [True, False])
def test_every_page_fits_80_columns_and_holds_no_control_character(
    kind: type[Message], render: Any, is_full: bool
) -> None:
    lines = render(fill(kind()) if is_full else kind())
    assert all(len(line.text) <= WIDTH and line.text.isprintable() for line in lines)
    assert not is_full or "forged" in "".join("".join(line.text.split()) for line in lines)
