"""The findings, in words, the gravest first. docs/operations.md has the remedy for each. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from contracts.streams import PARTITIONS
from operations_server.status.health_checks import SERVING
from operations_server.status.reading import ReadFailed
from operations_server.status.snapshot import Snapshot
from operations_server.status.states import PartitionState, ProjectionState
from runtime.process_reports.figures import STORES, Figure
from runtime.process_reports.report import WINDOW

OLD = 5.0
"""Seconds from which on an unpublished or unapplied event is a finding."""
LATE_SEALS = 60.0
"""Seconds from which on it is a finding that records are not sealed."""
NEARLY_FULL = 80
"""Percent of maxmemory from which on Redis is a finding."""


def list_findings(snapshot: Snapshot) -> list[str]:
    """Return a sentence for each finding; none if nothing needs attention."""
    parts = (
        _check_processes,
        _check_stores,
        _check_outbox,
        _check_stream,
        _check_projections,
        _check_sagas,
        _check_figures,
        _check_clocks,
        _check_key_ring,
        _check_memory,
        _check_seals,
    )
    return [finding for check in parts for finding in check(snapshot)]


def _check_processes(snapshot: Snapshot) -> Iterator[str]:
    for process in snapshot.processes:
        if process.health == "NOT_SERVING":
            reason = f": {process.reason}" if process.reason else ""
            yield f"{process.name} at {process.address} does not serve{reason}"
        elif process.health != SERVING:
            yield f"{process.name} at {process.address} does not answer ({process.health})"


def _check_stores(snapshot: Snapshot) -> Iterator[str]:
    stores = (("PostgreSQL", snapshot.outbox), ("NATS", snapshot.stream), ("Redis", snapshot.read_model))
    for name, part in stores:
        if isinstance(part, ReadFailed):
            yield f"{name} cannot be read: {part}"
    if not isinstance(snapshot.outbox, ReadFailed) and snapshot.outbox.in_recovery:
        yield "PostgreSQL is a standby and takes no writes"


def _check_outbox(snapshot: Snapshot) -> Iterator[str]:
    outbox = snapshot.outbox
    if isinstance(outbox, ReadFailed):
        return
    if not outbox.leader:
        yield "no relay leads, so no event is published"
    if outbox.oldest_age is not None and outbox.oldest_age >= OLD:
        age = _describe_duration(outbox.oldest_age)
        events = _count(outbox.pending, "event waits", "events wait")
        yield f"{events} for publication, the oldest for {age}"


def _check_stream(snapshot: Snapshot) -> Iterator[str]:
    stream = snapshot.stream
    if isinstance(stream, ReadFailed):
        return
    if not stream.epoch:
        yield "NATS has no stream; the relay creates it"
    elif not stream.complete:
        yield "the stream is incomplete; the relay republishes its events"
    elif not stream.intact:
        yield "the stream lacks messages that it had"


def _check_projections(snapshot: Snapshot) -> Iterator[str]:
    if isinstance(snapshot.read_model, ReadFailed):
        return
    if isinstance(snapshot.partitions, ReadFailed):
        yield f"the events that projections lack cannot be counted: {snapshot.partitions}"
    for view in snapshot.views:
        state = snapshot.read_model.projections[view.projection]
        yield from _check_projection(snapshot, view.projection, state)
    contexts = dict.fromkeys(view.projection.partition(".")[0] for view in snapshot.views)
    for context in contexts:
        held = snapshot.read_model.holders.get(context, {})
        if free := _list_free(held):
            yield f"no projector holds {free} of {context}"


def _check_projection(snapshot: Snapshot, name: str, state: ProjectionState) -> Iterator[str]:
    if state.error:
        yield f"{name} cannot be read: {state.error}"
        return
    if not state.ready:
        progress = f"{100 * snapshot.compute_progress(name):.0f} %"
        yield f"{name} is being built ({progress}): its queries answer VIEW_REBUILDING"
    elif not isinstance(snapshot.partitions, ReadFailed):
        yield from _check_age(name, snapshot.partitions[name])
    if not isinstance(snapshot.outbox, ReadFailed) and state.ready not in ("", snapshot.outbox.incarnation):
        yield f"{name} includes events of another incarnation of the database; a projector rebuilds it"
    if state.parked:
        letters = _count(state.parked, "parked aggregate", "parked aggregates")
        yield f"{name} has {letters}: see diptych dead-letters list"


def _check_age(name: str, partitions: Mapping[int, PartitionState]) -> Iterator[str]:
    age = max((each.unapplied.oldest_age or 0.0 for each in partitions.values()), default=0.0)
    if age >= OLD:
        behind = sum(each.unapplied.events for each in partitions.values())
        events = _count(behind, "event", "events")
        yield f"{name} is {events} behind, the oldest waits for {_describe_duration(age)}"


def _check_sagas(snapshot: Snapshot) -> Iterator[str]:
    sagas = snapshot.sagas
    if isinstance(sagas, ReadFailed):
        if not isinstance(snapshot.outbox, ReadFailed):
            yield f"the sagas cannot be read: {sagas}"
        return
    for name, counts in snapshot.list_saga_counts():
        for number, adjective in (
            (counts.blocked, "blocked"),
            (counts.unreadable, "unreadable"),
            (counts.denied, "denied a step"),
            (counts.overdue, "overdue"),
        ):
            if number:
                yield f"{name}: {_count(number, 'saga is', 'sagas are')} {adjective}"
    if sagas.parked_streams:
        parked = _count(sagas.parked_streams, "stream is", "streams are")
        yield f"{parked} parked for sagas: see diptych dead-letters list"
    for target in sagas.silent_targets:
        age = _describe_duration((snapshot.read_at - target.since).total_seconds())
        yield f"{target.target} does not answer steps for {age}, {target.waiting} wait: {target.error}"
    for context in snapshot.saga_contexts:
        if free := _list_free(sagas.find_holders(context)):
            yield f"no process manager holds {free} of {context}"


def _check_figures(snapshot: Snapshot) -> Iterator[str]:
    for figure in snapshot.health.figures:
        if not figure.good and figure.value is not None:
            yield _describe_figure(figure)
    for store, error in snapshot.health.errors.items():
        unknown = ", ".join(name for name, source in STORES.items() if source == store)
        yield f"{unknown}: unknown, since the reports in {store} cannot be read ({error})"


def _describe_figure(figure: Figure) -> str:
    text = f"{figure.name} is {figure.value:.4g} {figure.unit}, "
    text += f"on the wrong side of {figure.threshold:g} {figure.unit}"
    if figure.last_bad_age is None:
        return text
    last = _describe_duration(figure.last_bad_age)
    return f"{text}; it covers {_describe_duration(WINDOW)}, the last bad measurement is {last} old"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _describe_duration(seconds: float) -> str:
    """Return for instance `0.4 s`, `12 s`, `3 min` or `5 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _list_free(held: Iterable[int]) -> str:
    """Return the partitions that nobody holds, for people; empty if all are held."""
    free = sorted(set(range(PARTITIONS)) - set(held))
    if len(free) == PARTITIONS:
        return "any partition"
    return f"partition{'s' if len(free) > 1 else ''} {', '.join(map(str, free))}" if free else ""


def _check_clocks(snapshot: Snapshot) -> Iterator[str]:
    for name, part in (("PostgreSQL", snapshot.outbox), ("Redis", snapshot.read_model)):
        if not isinstance(part, ReadFailed) and part.clock_offset:
            direction = "ahead of" if part.clock_offset > 0 else "behind"
            yield f"the clock is {abs(part.clock_offset):.1f} s {direction} that of {name}"


def _check_key_ring(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.key_ring_error:
        yield f"the key ring cannot be used, so the previous keys stay in use: {snapshot.key_ring_error}"


def _check_memory(snapshot: Snapshot) -> Iterator[str]:
    model = snapshot.read_model
    if not isinstance(model, ReadFailed) and (model.used_percent or 0) >= NEARLY_FULL:
        yield f"Redis has used {model.used_percent} % of its maxmemory"


def _check_seals(snapshot: Snapshot) -> Iterator[str]:
    if not isinstance(snapshot.outbox, ReadFailed) and snapshot.outbox.seal_age > LATE_SEALS:
        yield f"no record of the last {_describe_duration(snapshot.outbox.seal_age)} is sealed"
