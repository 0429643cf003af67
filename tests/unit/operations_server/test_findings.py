"""What needs attention, in words, the gravest first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from operations_server.status.findings import list_findings
from operations_server.status.health_checks import ProcessHealth
from operations_server.status.messages import build_status
from operations_server.status.reading import ReadFailed
from operations_server.status.snapshot import Snapshot
from operations_server.status.states import (
    OutboxState,
    PartitionState,
    ProjectionState,
    ReadModelState,
    SagaState,
    StreamState,
    Unapplied,
)
from operations_server.system_gauges import compute_values
from process_manager.queries.saga_records import SagaCounts, SilentTarget
from runtime.process.settings import Settings
from runtime.process_reports.figures import (
    POSTGRESQL,
    REDIS,
    STORES,
    SUCCESS_RATE,
    Figure,
    compute_figures,
)
from runtime.process_reports.health import Health
from tests.support.ledger.stubs import types

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VIEW = View.of(types.Cheque)
NAME, SAGA = VIEW.projection, "ledger.collection"
ALL = dict.fromkeys(range(PARTITIONS), "p")
AWAY = ReadFailed("no answer for 3 s")
OUTBOX = OutboxState(NOW, "i", "e", 8, "relay", 0, None, False, 0.0, "PostgreSQL 18")
STREAM = StreamState("e", 8, complete=True, intact=True, description="8 events")
READY = ProjectionState("", "i", dict.fromkeys(range(PARTITIONS), ("e", 8)))
KEPT = {(NAME, "2.1"): replace(READY, generation="2.1")}
MODEL = ReadModelState({NAME: READY}, {"ledger": ALL}, None, 0.0, "2 MB used", KEPT)
SAGAS = SagaState({}, [], 0, {("ledger", number): "m" for number in range(PARTITIONS)})
PARTITION_STATES = {number: PartitionState("p", Unapplied()) for number in range(PARTITIONS)}
SERVING = ProcessHealth("relay", "a:1", "SERVING", "")
HEALTH = Health((), (), (), {})
HEALTHY = Snapshot(
    NOW, [VIEW], [SAGA], [SERVING], OUTBOX, STREAM, MODEL, SAGAS, {NAME: PARTITION_STATES}, HEALTH, ""
)


def with_projection(**changes: Any) -> Snapshot:
    return replace(HEALTHY, read_model=replace(MODEL, projections={NAME: replace(READY, **changes)}))


def with_sagas(**changes: Any) -> Snapshot:
    return replace(HEALTHY, sagas=replace(SAGAS, **changes))


def with_figure(figure: Figure) -> Snapshot:
    return replace(HEALTHY, health=replace(HEALTH, figures=[figure]))


def with_unknown_figures(store: str) -> Snapshot:
    errors = {store: "TimeoutError"}
    return replace(HEALTHY, health=Health(compute_figures((), Settings(), errors), (), (), errors))


def with_unapplied(events: int, age: float) -> Snapshot:
    partitions = {**PARTITION_STATES, 3: PartitionState("p", Unapplied(events, age))}
    return replace(HEALTHY, partitions={NAME: partitions})


def test_nothing_needs_attention_in_a_healthy_system() -> None:
    assert list_findings(HEALTHY) == []
    assert build_status(HEALTHY).healthy
    assert list_findings(with_unapplied(4, 4.9)) == []


HALF_BUILT = {"ready": "", "checkpoints": dict.fromkeys(range(PARTITIONS), ("e", 4))}
TARGET = SilentTarget("a.B", NOW - timedelta(minutes=5), "refused", 7)


@pytest.mark.parametrize(
    ("snapshot", "finding"),
    [
        (
            replace(HEALTHY, processes=[ProcessHealth("relay", "a:1", "NOT_SERVING", "the clock is off")]),
            "relay at a:1 does not serve: the clock is off",
        ),
        (
            replace(HEALTHY, processes=[ProcessHealth("relay", "a:1", "UNAVAILABLE", "")]),
            "relay at a:1 does not answer (UNAVAILABLE)",
        ),
        (replace(HEALTHY, stream=AWAY), "NATS cannot be read: no answer for 3 s"),
        (
            replace(HEALTHY, outbox=replace(OUTBOX, in_recovery=True)),
            "PostgreSQL is a standby and takes no writes",
        ),
        (replace(HEALTHY, outbox=replace(OUTBOX, leader="")), "no relay leads, so no event is published"),
        (replace(HEALTHY, outbox=replace(OUTBOX, seal_age=300.0)), "no record of the last 5 min is sealed"),
        (
            replace(HEALTHY, outbox=replace(OUTBOX, pending=200, oldest_age=18.8)),
            "200 events wait for publication, the oldest for 19 s",
        ),
        (
            replace(HEALTHY, stream=replace(STREAM, epoch="", complete=False)),
            "NATS has no stream; the relay creates it",
        ),
        (
            replace(HEALTHY, stream=replace(STREAM, complete=False)),
            "the stream is incomplete; the relay republishes its events",
        ),
        (replace(HEALTHY, stream=replace(STREAM, intact=False)), "the stream lacks messages that it had"),
        (with_projection(error="WRONGTYPE"), f"{NAME} cannot be read: WRONGTYPE"),
        (
            with_projection(**HALF_BUILT),
            f"{NAME} is being built (50 %): its queries answer VIEW_REBUILDING",
        ),
        (
            with_projection(ready="another"),
            f"{NAME} includes events of another incarnation of the database; a projector rebuilds it",
        ),
        (with_projection(parked=2), f"{NAME} has 2 parked aggregates: see diptych dead-letters list"),
        (with_unapplied(40, 300.0), f"{NAME} is 40 events behind, the oldest waits for 5 min"),
        (
            replace(HEALTHY, read_model=replace(MODEL, holders={"ledger": dict.fromkeys(range(14), "p")})),
            "no projector holds partitions 14, 15 of ledger",
        ),
        (with_sagas(counts={SAGA: SagaCounts(3, 0, 2, 0)}), f"{SAGA}: 2 sagas are blocked"),
        (with_sagas(counts={SAGA: SagaCounts(3, 1, 0, 0)}), f"{SAGA}: 1 saga is overdue"),
        (with_sagas(parked_streams=1), "1 stream is parked for sagas: see diptych dead-letters list"),
        (with_sagas(silent_targets=[TARGET]), "a.B does not answer steps for 5 min, 7 wait: refused"),
        (with_sagas(holders={}), "no process manager holds any partition of ledger"),
        (
            with_figure(Figure("failed events", 3, 0, "events", False, last_bad_age=200.0)),
            "failed events is 3 events, on the wrong side of 0 events; it covers 5 min, "
            "the last bad measurement is 3 min old",
        ),
        (
            with_figure(Figure("read model staleness", 7.5, 5, "s", False)),
            "read model staleness is 7.5 s, on the wrong side of 5 s",
        ),
        (
            with_unknown_figures(POSTGRESQL),
            "command success rate: unknown, since the reports in PostgreSQL cannot be read (TimeoutError)",
        ),
        (replace(HEALTHY, sagas=AWAY), "the sagas cannot be read: no answer for 3 s"),
        (
            replace(HEALTHY, outbox=replace(OUTBOX, clock_offset=-2.5)),
            "the clock is 2.5 s behind that of PostgreSQL",
        ),
        (
            replace(HEALTHY, key_ring_error="not JSON"),
            "the key ring cannot be used, so the previous keys stay in use: not JSON",
        ),
        (
            replace(HEALTHY, read_model=replace(MODEL, used_percent=80)),
            "Redis has used 80 % of its maxmemory",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_finding_says_what_is_wrong(snapshot: Snapshot, finding: str) -> None:
    assert list_findings(snapshot) == [finding]
    assert not build_status(snapshot).healthy


def test_a_figure_whose_reports_cannot_be_read_is_unknown_and_not_good() -> None:
    status = build_status(with_unknown_figures(REDIS))
    errors = {figure.name: figure.error for figure in status.figures if not figure.good}
    assert errors == dict.fromkeys(set(STORES) - {SUCCESS_RATE}, "TimeoutError")


def test_a_bad_figure_says_when_the_last_bad_measurement_was() -> None:
    figure = Figure("failed events", 3, 0, "events", False, last_bad_age=200.0)
    (shown,) = build_status(with_figure(figure)).figures
    assert shown.last_bad_time.ToDatetime(UTC) == NOW - timedelta(seconds=200)


def test_the_gravest_finding_comes_first() -> None:
    stopped = ProcessHealth("command_server", "a:1", "NOT_SERVING", "")
    snapshot = replace(with_projection(parked=1), processes=[stopped], outbox=AWAY, sagas=AWAY)
    assert list_findings(snapshot) == [
        "command_server at a:1 does not serve",
        "PostgreSQL cannot be read: no answer for 3 s",
        f"{NAME} has 1 parked aggregate: see diptych dead-letters list",
    ]


def test_a_part_that_cannot_be_read_has_no_metrics_rather_than_old_ones() -> None:
    healthy = {gauge.name: values for gauge, values in compute_values(HEALTHY).items()}
    assert all(healthy.values())
    away = replace(HEALTHY, outbox=AWAY, read_model=AWAY, sagas=AWAY, partitions=AWAY)
    values = {gauge.name: values for gauge, values in compute_values(away).items()}
    assert {name for name in values if values[name]} == {
        "diptych.system.findings",
        "diptych.process.serving",
        "diptych.store.readable",
    }
    assert values["diptych.store.readable"] == {("postgresql",): 0, ("nats",): 1, ("redis",): 0}


def test_a_saga_without_instances_and_a_partition_without_holder_count_as_zero() -> None:
    values = {gauge.name: values for gauge, values in compute_values(with_sagas(holders={})).items()}
    assert values["diptych.sagas.instances"][SAGA, "open"] == 0
    assert values["diptych.process_manager.partition.holder"]["ledger", 3, ""] == 0
