"""promtool evaluates every alert on series that must make it fire, and on such that must not."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from devstack.observe.programs import PROMTOOL
from tests.support.harness.expressions import FOLDER, read_alerts
from tests.support.harness.observers import require

pytestmark = pytest.mark.long

RUNBOOKS = "https://runbooks.test"
INTERVAL = "5s"
GET_ORDER = 'rpc_method="diptych.ordering.v1.QueryService/GetOrder"'


@dataclass(frozen=True)
class Case:
    """Series from the time 0 on, every 5 seconds, and what an alert makes of them.

    Args:
        alert: its name.
        series: values by series, in promtool's notation.
        labels: those of the alert that fires, besides severity; None if none fires.
        summary: of the alert that fires.
        at: the time at which it is evaluated.
    """

    alert: str
    series: dict[str, str]
    labels: dict[str, str] | None
    summary: str = ""
    at: str = "1m"


def up(*absent: str, **values: str) -> dict[str, str]:
    """Return series of `up` of each kind of process: 1 unless given."""
    kinds = ("command_server", "query_server", "relay", "projector", "process_manager", "operations_server")
    return {
        f'up{{job="{kind}",instance="{kind}-1"}}': values.get(kind, "1x100")
        for kind in kinds
        if kind not in absent
    }


CASES = [
    Case(
        "ProcessAway",
        up(projector="1 0x20"),
        {"job": "projector", "instance": "projector-1"},
        "projector-1 gives no metrics",
        "15s",
    ),
    Case("ProcessAway", up(projector="1 0 1x20"), None),
    Case("ProcessAway", {'up{job="node"}': "0x20"}, None),
    Case("NoProcessOfKind", up("relay"), {"job": "relay"}, "No relay answers"),
    Case("NoProcessOfKind", up(relay="0x20"), {"job": "relay"}, "No relay answers"),
    Case("NoProcessOfKind", {**up(relay="0x20"), 'up{job="relay",instance="relay-2"}': "1x20"}, None),
    Case(
        "OperationsServerAway",
        up("operations_server"),
        {},
        "No operations server answers: the state of the system is unknown",
    ),
    Case("OperationsServerAway", up(), None),
    Case(
        "ProcessNotServing",
        {
            'diptych_process_serving_ratio{process="relay",address="a:1",instance="o-1"}': "0x20",
            'diptych_process_serving_ratio{process="relay",address="a:2",instance="o-1"}': "1x20",
        },
        {"process": "relay", "address": "a:1"},
        "relay at a:1 is not SERVING",
    ),
    Case(
        "WorkerSilent",
        {
            'diptych_worker_answering_ratio{worker="1",instance="q-1"}': "0x20",
            'diptych_worker_answering_ratio{worker="2",instance="q-1"}': "1x20",
        },
        {"worker": "1", "instance": "q-1"},
        "Worker 1 of q-1 does not answer its parent",
    ),
    Case(
        "StoreUnreachable",
        {
            'diptych_store_readable_ratio{store="nats"}': "0x20",
            'diptych_store_readable_ratio{store="redis",instance="o-1"}': "0x20",
            'diptych_store_readable_ratio{store="redis",instance="o-2"}': "1x20",
        },
        {"store": "nats"},
        "nats cannot be read",
    ),
    Case(
        "ClockOff",
        {
            'diptych_clock_offset_milliseconds{instance="q-1"}': "-700x20",
            'diptych_clock_offset_milliseconds{instance="q-2"}': "30x20",
        },
        {"instance": "q-1"},
        "The clock of q-1 is off by 700 ms",
    ),
    Case(
        "KeyRingInvalid",
        {'diptych_key_ring_valid_ratio{instance="q-1"}': "0x20"},
        {"instance": "q-1"},
        "q-1 cannot use the file of the key ring",
    ),
    Case(
        "ForeignMessages",
        {
            'diptych_feed_foreign_messages_total{instance="p-1"}': "0x5 1x20",
            'diptych_feed_foreign_messages_total{instance="p-2"}': "0x5 1x20",
        },
        {},
        "Somebody else than the relay publishes to the stream",
    ),
    Case("ForeignMessages", {'diptych_feed_foreign_messages_total{instance="p-1"}': "7x20"}, None),
    Case(
        "FilesInvalid",
        {'diptych_files_valid_ratio{instance="q-1",setting="DIPTYCH_TLS_CERTIFICATE"}': "0x20"},
        {"instance": "q-1", "setting": "DIPTYCH_TLS_CERTIFICATE"},
        "q-1 cannot use the files of DIPTYCH_TLS_CERTIFICATE",
    ),
    Case(
        "CertificateExpires",
        {
            'diptych_certificate_left_seconds{instance="q-1"}': "3000x20",
            'diptych_certificate_left_seconds{instance="q-2"}': "90000x20",
        },
        {"instance": "q-1"},
        "The certificate of q-1 expires in 50m 0s",
    ),
    Case(
        "RedisNearlyFull",
        {"diptych_redis_memory_used_percent": "81x20"},
        {},
        "Redis uses 81 % of its maxmemory",
    ),
    Case("RedisNearlyFull", {"diptych_redis_memory_used_percent": "80x20"}, None),
    Case(
        "NoRelayLeads",
        {'diptych_relay_leader_ratio{holder=""}': "0x20"},
        {},
        "No relay leads: no event is published",
    ),
    Case("NoRelayLeads", {'diptych_relay_leader_ratio{holder="vm:1"}': "1x20"}, None),
    Case(
        "OutboxOld",
        {
            'diptych_outbox_oldest_age_seconds{instance="o-1"}': "0+5x20",
            'diptych_outbox_oldest_age_seconds{instance="o-2"}': "0+5x20",
        },
        {},
        "The oldest unpublished event is 1m 0s old",
    ),
    Case(
        "RecordsNotSealed",
        {
            'diptych_seal_age_seconds{instance="o-1"}': "0+10x20",
            'diptych_seal_age_seconds{instance="o-2"}': "0+10x20",
        },
        {},
        "No record of the last 3m 0s is sealed",
        "90s",
    ),
    Case(
        "ProjectionBehind",
        {
            f'diptych_projection_oldest_unapplied_age_seconds{{projection="a",partition="{number}"}}': values
            for number, values in enumerate(("0x20", "90x20", "70x20"))
        },
        {"projection": "a"},
        "a lacks an event that is 1m 30s old",
    ),
    Case(
        "ReadModelStale",
        {'diptych_projection_oldest_unapplied_age_seconds{projection="a"}': "0 9 0x20"},
        None,
    ),
    Case(
        "ReadModelStale",
        {'diptych_projection_oldest_unapplied_age_seconds{projection="a"}': "9x20"},
        {"projection": "a"},
        "a lacks an event that is 9s old",
    ),
    Case(
        "ProjectionNotReady",
        {
            'diptych_projection_ready_ratio{projection="a"}': "0x30",
            'diptych_projection_ready_ratio{projection="b"}': "1x30",
        },
        {"projection": "a"},
        "a answers no queries",
        "2m",
    ),
    Case(
        "PartitionWithoutHolder",
        {
            'diptych_projector_partition_holder_ratio{context="c",partition="1",holder=""}': "0x20",
            'diptych_projector_partition_holder_ratio{context="c",partition="2",holder=""}': "0x20",
            'diptych_projector_partition_holder_ratio{context="c",partition="3",holder="p"}': "1x20",
        },
        {"context": "c", "kind": "projector"},
        "No projector holds 2 partitions of c",
    ),
    Case(
        "PartitionWithoutHolder",
        {'diptych_process_manager_partition_holder_ratio{context="c",partition="1",holder=""}': "0x20"},
        {"context": "c", "kind": "process_manager"},
        "No process manager holds 1 partitions of c",
    ),
    Case(
        "AggregatesParked",
        {
            'diptych_projection_parked{projection="a"}': "0 2x20",
            'diptych_projection_parked{projection="b"}': "0x20",
        },
        {"projection": "a"},
        "2 aggregates are parked in a",
    ),
    Case(
        "SagasBlocked",
        {'diptych_sagas_instances{saga="s",state="blocked"}': "3x20"},
        {"saga": "s", "state": "blocked"},
        "3 instances of s are blocked",
    ),
    Case("SagasBlocked", {'diptych_sagas_instances{saga="s",state="open"}': "3x20"}, None),
    Case("SagaStreamsParked", {"diptych_sagas_parked_streams": "1x20"}, {}, "1 streams are parked for sagas"),
    Case(
        "SagasOverdue",
        {'diptych_sagas_instances{saga="s",state="overdue"}': "1x20"},
        {"saga": "s"},
        "1 instances of s are overdue",
    ),
    Case(
        "SagaStepsDenied",
        {'diptych_sagas_instances{saga="s",state="denied"}': "1x20"},
        {"saga": "s"},
        "1 instances of s wait with denied steps",
    ),
    Case(
        "StepTargetSilent",
        {'diptych_sagas_step_target_silent_ratio{target="t"}': "1x20"},
        {"target": "t"},
        "t answers no steps of sagas",
    ),
    Case(
        "EventLoopSlow",
        {'diptych_event_loop_stalled_seconds{instance="q-1"}': "0+1x20"},
        {"instance": "q-1"},
        "The event loop of q-1 is late by 12s",
    ),
    Case(
        "EventLoopSlow",
        {
            'diptych_event_loop_delay_seconds_bucket{instance="q-1",le="0.25"}': "0+4x30",
            'diptych_event_loop_delay_seconds_bucket{instance="q-1",le="0.5"}': "0+5x30",
            'diptych_event_loop_delay_seconds_bucket{instance="q-1",le="+Inf"}': "0+5x30",
        },
        {"instance": "q-1"},
        "The event loop of q-1 is late by 375ms",
    ),
    Case(
        "CallsRefusedForOverload",
        {'diptych_calls_shed_total{job="query_server",limit="waits"}': "_x10 30x20"},
        {"job": "query_server", "limit": "waits"},
        "query_server refused 30 calls in five minutes, by waits",
    ),
    Case("CallsRefusedForOverload", {'diptych_calls_shed_total{job="q",limit="waits"}': "0 9x20"}, None),
    Case(
        "CommandsFail",
        {
            'commands_processed_total{command_type="C",outcome="accepted"}': "0+1x100",
            'commands_processed_total{command_type="C",outcome="failed"}': "0+1x100",
        },
        {"command_type": "C"},
        "C fails",
        "5m",
    ),
    Case(  # the series begins with the failures
        "CommandsFail",
        {'commands_processed_total{command_type="C",outcome="failed"}': "_x10 3x100"},
        {"command_type": "C"},
        "C fails",
        "2m",
    ),
    Case(
        "CommandsFail",
        {
            'commands_processed_total{command_type="C",outcome="accepted"}': "0+9x100",
            'commands_processed_total{command_type="C",outcome="rejected"}': "0+9x100",
            'commands_processed_total{command_type="C",outcome="failed"}': "0+1x100",
        },
        None,
        at="5m",
    ),
    Case(
        "CommandSuccessRateLow",
        {
            'commands_processed_total{outcome="accepted"}': "0+89x100",
            'commands_processed_total{outcome="rejected"}': "0+10x100",
            'commands_processed_total{outcome="failed"}': "0+1x100",
        },
        {},
        "99% of the commands of five minutes succeeded",
        "5m",
    ),
    Case(
        "CommandSuccessRateLow",
        {
            'commands_processed_total{outcome="rejected"}': "0+9999x100",
            'commands_processed_total{outcome="failed"}': "0+1x100",
        },
        None,
        at="5m",
    ),
    Case(
        "QueryResponseTimeHigh",
        {
            f'rpc_server_call_duration_seconds_bucket{{{GET_ORDER},le="0.1"}}': "0+97x100",
            f'rpc_server_call_duration_seconds_bucket{{{GET_ORDER},le="0.25"}}': "0+100x100",
            f'rpc_server_call_duration_seconds_bucket{{{GET_ORDER},le="+Inf"}}': "0+100x100",
        },
        {},
        "A hundredth of GetOrder calls takes more than 200ms",
        "5m",
    ),
    Case(
        "QueryResponseTimeHigh",
        {
            f'rpc_server_call_duration_seconds_bucket{{{GET_ORDER},le="0.1"}}': "0+100x100",
            f'rpc_server_call_duration_seconds_bucket{{{GET_ORDER},le="+Inf"}}': "0+100x100",
            'rpc_server_call_duration_seconds_bucket{rpc_method="another",le="0.1"}': "0x100",
            'rpc_server_call_duration_seconds_bucket{rpc_method="another",le="+Inf"}': "0+900x100",
        },
        None,
        at="5m",
    ),
    Case(
        "EventProcessingLagHigh",
        {
            'read_model_lag_seconds_bucket{le="1"}': "0+98x100",
            'read_model_lag_seconds_bucket{le="3"}': "0+100x100",
            'read_model_lag_seconds_bucket{le="+Inf"}': "0+100x100",
        },
        {},
        "A hundredth of events reaches its view after more than 2s",
        "5m",
    ),
    Case(
        "EventsFailed",
        {'events_processed_total{event_type="E",success="false"}': "_x10 1x100"},
        {"event_type": "E"},
        "E could not be applied",
    ),
    Case("EventsFailed", {'events_processed_total{event_type="E",success="false"}': "1x100"}, None, at="6m"),
    Case(  # five minutes ago a scrape failed
        "EventsFailed",
        {'events_processed_total{event_type="E",success="false"}': "1x70 stale _x5 1x100"},
        None,
        at="11m",
    ),
    Case("EventsFailed", {'events_processed_total{event_type="E",success="true"}': "0+1x100"}, None),
]


def test_there_is_a_case_for_each_alert() -> None:
    assert {case.alert for case in CASES if case.labels is not None} == {
        rule["alert"] for rule in read_alerts()
    }


def test_each_alert_fires_when_it_must_and_not_else(tmp_path: Path) -> None:
    require(PROMTOOL)
    tests = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "evaluation_interval": INTERVAL,
        "tests": [write_test(case) for case in CASES],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    run = subprocess.run(
        [PROMTOOL.find(), "test", "rules", tmp_path / "tests.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def write_test(case: Case) -> dict[str, object]:
    (severity, page), *_ = [
        (rule["labels"]["severity"], rule["annotations"]["runbook_url"])
        for rule in read_alerts()
        if rule["alert"] == case.alert
    ]
    annotations = {
        "summary": case.summary,
        "runbook_url": page.replace("{{ $externalLabels.runbooks }}", RUNBOOKS),
    }
    labels = {"severity": severity, **(case.labels or {})}
    firing = [] if case.labels is None else [{"exp_labels": labels, "exp_annotations": annotations}]
    return {
        "name": case.alert,
        "interval": INTERVAL,
        "external_labels": {"runbooks": RUNBOOKS},
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": firing}],
    }
