"""Metrics of workers, gathered by their parent, which answers for all of them.

How it works. Each worker sends its metrics once a second over a socket to its parent, from a thread
of its own; a last time when it ends. The parent keeps the last ones of each worker. When a worker has
ended, its counters and histograms stay in the parent's sums, so that they never go back while the parent
lives; the counts of a killed worker since its last message, within a second, are lost. Gauges have the
label `worker`, its number. A worker that has not sent for SILENT seconds, since it is frozen, has no gauges,
and `diptych.worker.answering` is 0.
"""

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import inf
from threading import Event, Lock, Thread
from time import monotonic

import msgspec

from runtime.process import logs
from runtime.telemetry.instruments import Key
from runtime.telemetry.metrics import WORKER_ANSWERING
from runtime.telemetry.snapshots import MetricSnapshot, Point, merge, take_snapshots

log = logs.get_logger(__name__)

INTERVAL = 1.0
"""Seconds between two messages of a worker."""
SILENT = 5.0
"""Seconds without a message after which a worker counts as not answering."""
FINAL_TIMEOUT = 1.0
"""Seconds that a worker which ends waits until its parent has taken its last message."""

OWN_PREFIX = "diptych.worker."
"""The prefix of the names of the parent's own metrics."""

_LENGTH = 4
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[MetricSnapshot]).decode


class WorkerReporter:
    """Sends the metrics of this worker over a socket to its parent.

    Args:
        descriptor: of the socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(True)
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="worker metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send a last time."""
        self._stopping.set()
        self._thread.join(FINAL_TIMEOUT)

    def _run(self) -> None:
        with suppress(OSError):  # the parent has ended
            while not self._stopping.wait(INTERVAL):
                self._send()
            self._send()

    def _send(self) -> None:
        message = _encode(take_snapshots())
        self._socket.sendall(len(message).to_bytes(_LENGTH, "big") + message)


class WorkerMetrics:
    """The metrics of all workers of a parent. `collect` may run in any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._latest: dict[int, tuple[float, list[MetricSnapshot]]] = {}
        self._ended: list[MetricSnapshot] = []
        self._numbers: set[int] = set()
        WORKER_ANSWERING.observe(self._read_answering)

    async def receive(self, number: int, connection: socket.socket) -> None:
        """Keep the metrics that the worker with this number sends, until it ends."""
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        with self._lock:
            self._numbers.add(number)
            self._latest[number] = monotonic(), []
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
                snapshots = _decode(await reader.readexactly(length))
                with self._lock:
                    self._latest[number] = monotonic(), snapshots
        except (asyncio.IncompleteReadError, OSError):
            return
        except msgspec.MsgspecError as error:
            log.error("Metrics of a worker cannot be read", worker=number, error=repr(error))
        finally:
            writer.close()
            self._end(number)

    def _end(self, number: int) -> None:
        with self._lock:
            _, snapshots = self._latest.pop(number)
            self._ended = merge([self._ended, _without_gauges(snapshots)])

    def collect(self) -> list[MetricSnapshot]:
        """Return the sums of all workers, and the gauges of those that answer."""
        with self._lock:
            latest, ended = self._latest.copy(), self._ended
        groups = [ended]
        for number, (received, snapshots) in sorted(latest.items()):
            answers = monotonic() - received < SILENT
            groups.append(_label_gauges(snapshots, number) if answers else _without_gauges(snapshots))
        own = [snapshot for snapshot in take_snapshots() if snapshot.name.startswith(OWN_PREFIX)]
        return merge([*groups, own])

    def _read_answering(self) -> Mapping[Key, float]:
        with self._lock:
            received = {number: time for number, (time, _) in self._latest.items()}
            numbers = sorted(self._numbers)
        oldest = monotonic() - SILENT
        return {(str(number),): int(received.get(number, -inf) > oldest) for number in numbers}


def _without_gauges(snapshots: Iterable[MetricSnapshot]) -> list[MetricSnapshot]:
    return [snapshot for snapshot in snapshots if snapshot.kind != "gauge"]


def _label_gauges(snapshots: Iterable[MetricSnapshot], number: int) -> list[MetricSnapshot]:
    return [_label(snapshot, number) if snapshot.kind == "gauge" else snapshot for snapshot in snapshots]


def _label(gauge: MetricSnapshot, number: int) -> MetricSnapshot:
    points = [Point({**point.attributes, "worker": str(number)}, point.number) for point in gauge.points]
    return msgspec.structs.replace(gauge, points=points)
