"""The messages of a reading of the system. Pure."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from diptych.operations.v1 import status_pb2 as messages

from operations_server.status.findings import list_findings
from operations_server.status.instances import build_instances
from operations_server.status.reading import ReadFailed
from operations_server.status.snapshot import Snapshot
from operations_server.status.states import OutboxState, PartitionState, Unapplied
from runtime.process_reports.figures import Figure


def build_status(snapshot: Snapshot) -> messages.Status:
    """Return the state of the system, without the partitions of its projections."""
    findings = list_findings(snapshot)
    status = messages.Status(
        healthy=not findings,
        findings=findings,
        processes=[
            messages.Process(name=each.name, address=each.address, health=each.health, reason=each.reason)
            for each in snapshot.processes
        ],
        stores=_build_stores(snapshot),
        outbox=_build_outbox(snapshot.outbox),
        projections=[_build_projection(snapshot, view.projection) for view in snapshot.views],
    )
    status.read_time.FromDatetime(snapshot.read_at)
    status.instances.extend(build_instances(snapshot))
    if not isinstance(snapshot.sagas, ReadFailed):
        for name, counts in snapshot.list_saga_counts():
            status.sagas.add(
                saga=name,
                open=counts.open,
                overdue=counts.overdue,
                blocked=counts.blocked,
                denied=counts.denied,
                unreadable=counts.unreadable,
            )
        for target in snapshot.sagas.silent_targets:
            message = status.silent_targets.add(
                service=target.target, waiting_steps=target.waiting, error=target.error
            )
            message.silent_since.FromDatetime(target.since)
    status.figures.extend(_build_figure(snapshot, figure) for figure in snapshot.health.figures)
    return status


def _build_figure(snapshot: Snapshot, figure: Figure) -> messages.HealthFigure:
    message = messages.HealthFigure(
        name=figure.name,
        value=figure.value,
        threshold=figure.threshold,
        unit=figure.unit,
        good=figure.good,
        error=figure.error,
    )
    if figure.last_bad_age is not None:
        message.last_bad_time.FromDatetime(snapshot.read_at - timedelta(seconds=figure.last_bad_age))
    return message


def build_projections(snapshot: Snapshot, name: str = "") -> list[messages.Projection]:
    """Return projections with their partitions; all of them unless a name is given."""
    projections = []
    for view in snapshot.views:
        if name in ("", view.projection):
            projection = _build_projection(snapshot, view.projection)
            projection.partitions.extend(_build_partitions(snapshot, view.projection))
            projections.append(projection)
    return projections


def _build_stores(snapshot: Snapshot) -> Iterator[messages.Store]:
    stores = (("PostgreSQL", snapshot.outbox), ("NATS", snapshot.stream), ("Redis", snapshot.read_model))
    for name, part in stores:
        if isinstance(part, ReadFailed):
            yield messages.Store(name=name, error=str(part))
        else:
            yield messages.Store(name=name, description=part.description)


def _build_outbox(outbox: OutboxState | ReadFailed) -> messages.Outbox:
    if isinstance(outbox, ReadFailed):
        return messages.Outbox(error=str(outbox))
    message = messages.Outbox(pending_events=outbox.pending, leader=outbox.leader)
    if outbox.oldest_age is not None:
        message.oldest_age.FromTimedelta(timedelta(seconds=outbox.oldest_age))
    return message


def _build_projection(snapshot: Snapshot, name: str) -> messages.Projection:
    message = messages.Projection(name=name)
    if isinstance(snapshot.read_model, ReadFailed):
        message.error = f"Redis cannot be read: {snapshot.read_model}"
        return message
    state = snapshot.read_model.projections[name]
    message.error, message.generation = state.error, state.generation
    message.code_changed = state.code_changed
    message.ready = bool(state.ready)
    message.build_progress = snapshot.compute_progress(name)
    message.parked_aggregates, message.archived_aggregates = state.parked, state.archived
    if isinstance(snapshot.partitions, ReadFailed):
        message.error = message.error or str(snapshot.partitions)
        return message
    partitions = snapshot.partitions[name]
    message.events_behind = sum(each.unapplied.events for each in partitions.values())
    if state.ready and (age := find_oldest(partitions)) is not None:
        message.oldest_unapplied_age.FromTimedelta(timedelta(seconds=age))
    return message


def find_oldest(partitions: Mapping[int, PartitionState]) -> float | None:
    """Return the age of the oldest unapplied event in seconds, or None."""
    ages = (each.unapplied.oldest_age for each in partitions.values())
    return max((age for age in ages if age is not None), default=None)


def _build_partitions(snapshot: Snapshot, name: str) -> Iterator[messages.Partition]:
    if isinstance(snapshot.partitions, ReadFailed) or isinstance(snapshot.read_model, ReadFailed):
        return
    ready = bool(snapshot.read_model.projections[name].ready)
    for number, state in snapshot.partitions[name].items():
        message = messages.Partition(number=number, holder=state.holder, events_behind=state.unapplied.events)
        if ready:
            _set_age(message, state.unapplied)
        yield message


def _set_age(message: messages.Partition, unapplied: Unapplied) -> None:
    if unapplied.oldest_age is not None:
        message.oldest_unapplied_age.FromTimedelta(timedelta(seconds=unapplied.oldest_age))
