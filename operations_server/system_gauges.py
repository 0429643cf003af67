"""Computes the gauges of the system's state from readings of the system."""

import asyncio
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import NoReturn

from command_server.relay.metrics import OUTBOX_PENDING
from contracts.streams import PARTITIONS
from operations_server import metrics
from operations_server.status.findings import list_findings
from operations_server.status.health_checks import SERVING
from operations_server.status.reading import ReadFailed
from operations_server.status.snapshot import Snapshot
from operations_server.status.system import SystemStatus
from runtime.process import logs
from runtime.telemetry.instruments import Gauge, Key

INTERVAL = 5.0
"""Seconds between two readings for the metrics."""

GAUGES = (
    OUTBOX_PENDING,
    *(each for each in vars(metrics).values() if isinstance(each, Gauge) and each is not metrics.READING_AGE),
)
"""The gauges that have the values of a reading."""
SAGA_STATES = ("open", "overdue", "blocked", "denied", "unreadable")
Values = dict[Gauge, dict[Key, float]]
"""The values of gauges, by the values of their attributes."""

log = logs.get_logger(__name__)


class SystemGauges:
    """Computes the gauges from a reading every INTERVAL seconds."""

    def __init__(self, system: SystemStatus) -> None:
        self._system = system
        self._values: Values = {}
        self._read_at = monotonic()
        metrics.READING_AGE.observe(self._get_age)
        for gauge in GAUGES:
            gauge.observe(partial(self._get_values, gauge))

    def _get_values(self, gauge: Gauge) -> dict[Key, float]:
        """Return the values of one reading, for the exporter's thread."""
        return self._values.get(gauge, {})

    def _get_age(self) -> float:
        """Return the seconds since the last reading, also while the event loop stands still."""
        return monotonic() - self._read_at

    async def run(self) -> NoReturn:
        failures = logs.RepeatedErrors(log, "System not measured")
        while True:
            try:
                self._values = compute_values(await self._system.read())
                self._read_at = monotonic()
                failures.reset()
            except Exception as error:
                self._values = {}  # a value that may be wrong is none
                failures.report(error)
            await asyncio.sleep(INTERVAL)


def compute_values(snapshot: Snapshot) -> Values:
    """Return the values of all metrics. One that cannot be read now has none."""
    values: Values = {gauge: {} for gauge in GAUGES}
    values[metrics.FINDINGS][()] = len(list_findings(snapshot))
    for process in snapshot.processes:
        values[metrics.PROCESS_SERVING][process.name, process.address] = int(process.health == SERVING)
    _add_stores(values, snapshot)
    _add_projections(values, snapshot)
    _add_partitions(values, snapshot)
    _add_sagas(values, snapshot)
    return values


def _add_stores(values: Values, snapshot: Snapshot) -> None:
    stores = {"postgresql": snapshot.outbox, "nats": snapshot.stream, "redis": snapshot.read_model}
    for name, part in stores.items():
        values[metrics.STORE_READABLE][name,] = int(not isinstance(part, ReadFailed))
    if not isinstance(snapshot.outbox, ReadFailed):
        values[OUTBOX_PENDING][()] = snapshot.outbox.pending
        values[metrics.OUTBOX_AGE][()] = snapshot.outbox.oldest_age or 0.0
        values[metrics.SEAL_AGE][()] = snapshot.outbox.seal_age
        values[metrics.LEADER][snapshot.outbox.leader,] = int(bool(snapshot.outbox.leader))


def _add_projections(values: Values, snapshot: Snapshot) -> None:
    if isinstance(snapshot.read_model, ReadFailed):
        return
    for name, state in snapshot.read_model.projections.items():
        values[metrics.READY][name,] = int(bool(state.ready))
        values[metrics.BUILD_PROGRESS][name,] = snapshot.compute_progress(name)
        values[metrics.PARKED][name,] = state.parked
    for names, progress in snapshot.compute_kept_progress().items():
        values[metrics.GENERATION_PROGRESS][names] = progress
    for context in {view.projection.partition(".")[0] for view in snapshot.views}:
        _add_holders(values[metrics.PROJECTOR_HOLDER], context, snapshot.read_model.holders.get(context, {}))


def _add_partitions(values: Values, snapshot: Snapshot) -> None:
    if isinstance(snapshot.partitions, ReadFailed) or isinstance(snapshot.read_model, ReadFailed):
        return
    for name, partitions in snapshot.partitions.items():
        ready = snapshot.read_model.projections[name].ready
        for number, state in partitions.items():
            values[metrics.EVENTS_BEHIND][name, number] = state.unapplied.events
            if ready:
                values[metrics.UNAPPLIED_AGE][name, number] = state.unapplied.oldest_age or 0.0


def _add_sagas(values: Values, snapshot: Snapshot) -> None:
    if isinstance(snapshot.sagas, ReadFailed):
        return
    values[metrics.PARKED_STREAMS][()] = snapshot.sagas.parked_streams
    for name, counts in snapshot.list_saga_counts():
        for state in SAGA_STATES:
            values[metrics.SAGAS][name, state] = getattr(counts, state)
    for context in snapshot.saga_contexts:
        _add_holders(values[metrics.MANAGER_HOLDER], context, snapshot.sagas.find_holders(context))


def _add_holders(values: dict[Key, float], context: str, holders: Mapping[int, str]) -> None:
    for number in range(PARTITIONS):
        values[context, number, holders.get(number, "")] = int(number in holders)
