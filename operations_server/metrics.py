"""The metrics of the operations server: the state of the system, which shows dead processes, too.

Every operations server exports the same values: take `max` over them,
not a sum.
"""

from runtime.telemetry.instruments import Gauge

FINDINGS = Gauge("diptych.system.findings", "{finding}", "What needs attention, as `diptych status` lists it")
PROCESS_SERVING = Gauge(
    "diptych.process.serving", "1", "1 while a process is SERVING, otherwise 0", "process", "address"
)
READING_AGE = Gauge(
    "diptych.system.reading.age",
    "s",
    "Age of the reading of the system that the other metrics come from; before the first one since the start",
)
STORE_READABLE = Gauge("diptych.store.readable", "1", "1 while a store can be read, otherwise 0", "store")
OUTBOX_AGE = Gauge("diptych.outbox.oldest.age", "s", "Age of the oldest unpublished event; 0 without one")
SEAL_AGE = Gauge("diptych.seal.age", "s", "Age of the time up to which all records are sealed by checkpoints")
LEADER = Gauge("diptych.relay.leader", "1", "1 for the relay that leads; 0 without one", "holder")
EVENTS_BEHIND = Gauge(
    "diptych.projection.events_behind",
    "{event}",
    "Published events that a partition of a projection lacks",
    "projection",
    "partition",
)
UNAPPLIED_AGE = Gauge(
    "diptych.projection.oldest_unapplied.age",
    "s",
    "Age of the oldest committed event that a partition of a projection lacks; 0 if there is none",
    "projection",
    "partition",
)
READY = Gauge(
    "diptych.projection.ready", "1", "1 while a projection's views can be queried, otherwise 0", "projection"
)
BUILD_PROGRESS = Gauge(
    "diptych.projection.build.progress",
    "1",
    "Share of the stream that a build of the serving generation has read; 1 if none is under way",
    "projection",
)
GENERATION_PROGRESS = Gauge(
    "diptych.projection.generation.build.progress",
    "1",
    "Share of the stream that the build of a generation beside the serving one has read; 1 once it is ready",
    "projection",
    "generation",
)
PARKED = Gauge("diptych.projection.parked", "{aggregate}", "Parked aggregates of a projection", "projection")
PROJECTOR_HOLDER = Gauge(
    "diptych.projector.partition.holder",
    "1",
    "1 for the projector that holds a partition of a context; 0 without one",
    "context",
    "partition",
    "holder",
)
MANAGER_HOLDER = Gauge(
    "diptych.process_manager.partition.holder",
    "1",
    "1 for the process manager that holds a partition of a context; 0 without one",
    "context",
    "partition",
    "holder",
)
SAGAS = Gauge(
    "diptych.sagas.instances",
    "{saga}",
    "Sagas that have not ended: `open`, and of them `overdue`, `blocked`, `denied` and `unreadable` ones",
    "saga",
    "state",
)
PARKED_STREAMS = Gauge("diptych.sagas.parked_streams", "{stream}", "Streams that are parked for sagas")
