"""The messages of the processes that report about themselves. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from diptych.operations.v1 import status_pb2 as messages

from operations_server.status.snapshot import Snapshot
from runtime.process_reports.stored_report import StoredReport


def build_instances(snapshot: Snapshot) -> Iterator[messages.ProcessInstances]:
    """Yield the processes of each kind."""
    living, gone = snapshot.health.living, snapshot.health.gone
    for kind in sorted({each.report.kind for each in (*living, *gone)}):
        of_kind = messages.ProcessInstances(kind=kind)
        for reports, instances in ((living, of_kind.living), (gone, of_kind.gone)):
            built = [_build_instance(each, snapshot.read_at) for each in reports if each.report.kind == kind]
            instances.extend(built)
        of_kind.living.sort(key=lambda each: each.start_time.ToNanoseconds())
        of_kind.gone.sort(key=lambda each: -each.report_time.ToNanoseconds())
        yield of_kind


def _build_instance(stored: StoredReport, read_at: datetime) -> messages.ProcessInstance:
    reported_at = read_at - timedelta(seconds=max(0.0, stored.age))
    instance = messages.ProcessInstance(name=stored.instance, version=stored.report.version)
    instance.report_time.FromDatetime(reported_at)
    instance.start_time.FromDatetime(reported_at - timedelta(seconds=stored.report.uptime))
    return instance
