"""Reads the state of the whole system, within two seconds whatever is frozen, killed or cut off.

How it works. Everything is asked at the same time, each with a deadline of its own. Only the events that
projections lack need a second question, since PostgreSQL reads them from the checkpoints in Redis on. Calls
that arrive together share one reading, and one that has just ended serves for MAX_AGE.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import TypeVar

from contracts import streams
from contracts.view_layout import View
from operations_server.status.backlog import Feed, count_unapplied
from operations_server.status.health_checks import HealthChecks
from operations_server.status.read_model import ReadModel
from operations_server.status.reading import ReadFailed, Reading
from operations_server.status.snapshot import Partitions, Snapshot
from operations_server.status.states import (
    OutboxState,
    PartitionState,
    ReadModelState,
    SagaState,
    StreamState,
)
from operations_server.status.write_model import WriteModel
from runtime.jetstream import Connection, StreamIdentity, read_stream_identity
from runtime.process_reports.health import Health, Reports

FIRST, SECOND = 0.8, 0.7
"""Seconds that the first and the second question may take."""
MAX_AGE = 0.5
"""Seconds for which a reading is given to further callers."""

T = TypeVar("T")


class SystemStatus:
    """Reads the system.

    Args:
        views: of the projections.
        saga_names: the sagas of this process's contexts.
        checks: of the processes.
        write_model: PostgreSQL.
        read_model: Redis.
        reports: of the processes about themselves.
        nats: the connection.
        get_key_ring_error: returns why the key ring's file cannot be used; empty if it can.
    """

    def __init__(
        self,
        views: Sequence[View],
        saga_names: Sequence[str],
        checks: HealthChecks,
        write_model: WriteModel,
        read_model: ReadModel,
        reports: Reports,
        nats: Connection,
        get_key_ring_error: Callable[[], str],
    ) -> None:
        self.views = views
        self._saga_names = saga_names
        self._checks = checks
        self._write_model = write_model
        self._nats = nats
        self._get_key_ring_error = get_key_ring_error
        self._outbox: Reading[OutboxState] = Reading(write_model.read_outbox)
        self._sagas: Reading[SagaState] = Reading(write_model.read_sagas)
        self._redis: Reading[ReadModelState] = Reading(read_model.read)
        self._reports = reports
        self._health: Reading[Health] = Reading(reports.read)
        self._stream: Reading[StreamState] = Reading(self._read_stream)
        self._backlog: Reading[Partitions] | None = None
        self._running: asyncio.Task[Snapshot] | None = None
        self._ended_at = -MAX_AGE

    async def read(self) -> Snapshot:
        """Return a reading that is at most MAX_AGE old."""
        running = self._running
        if running is None or (running.done() and monotonic() - self._ended_at > MAX_AGE):
            running = self._running = asyncio.create_task(self._read())
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Give up the reads that run."""
        for reading in (self._outbox, self._sagas, self._redis, self._stream, self._health, self._backlog):
            if reading is not None:
                reading.close()
        if self._running is not None:
            self._running.cancel()
        await self._checks.close()

    async def _read(self) -> Snapshot:
        reports = asyncio.create_task(self._read_health())
        processes, outbox, sagas, read_model, stream = await asyncio.gather(
            self._checks.check(FIRST),
            catch(self._outbox.get(FIRST)),
            catch(self._sagas.get(FIRST)),
            catch(self._redis.get(FIRST)),
            catch(self._stream.get(FIRST)),
        )
        snapshot = Snapshot(
            read_at=datetime.now(UTC),
            views=self.views,
            saga_names=self._saga_names,
            processes=processes,
            outbox=outbox,
            stream=stream,
            read_model=read_model,
            sagas=sagas,
            partitions=await catch(self._read_partitions(outbox, read_model, stream)),
            health=await reports,
            key_ring_error=self._get_key_ring_error(),
        )
        self._ended_at = monotonic()
        return snapshot

    async def _read_health(self) -> Health:
        try:
            return await self._health.get(FIRST + SECOND)
        except ReadFailed as failure:
            return self._reports.describe_failure(str(failure))

    async def _read_stream(self) -> StreamState:
        self._nats.check_connected()
        identity = await read_stream_identity(self._nats.js)
        if identity is None:
            return StreamState("", 0, complete=False, intact=True, description="there is no stream")
        return StreamState(
            identity.epoch,
            identity.last_sequence,
            identity.complete,
            identity.intact,
            _describe_stream(identity),
        )

    async def _read_partitions(
        self,
        outbox: OutboxState | ReadFailed,
        read_model: ReadModelState | ReadFailed,
        stream: StreamState | ReadFailed,
    ) -> Partitions:
        if isinstance(outbox, ReadFailed):
            raise ReadFailed(f"PostgreSQL is unreachable: {outbox}")
        if isinstance(read_model, ReadFailed):
            raise ReadFailed(f"Redis is unreachable: {read_model}")
        if self._backlog is None or not self._backlog.running:
            self._backlog = Reading(lambda: self._count(outbox, read_model, stream))
        return await self._backlog.get(SECOND)

    async def _count(
        self, outbox: OutboxState, read_model: ReadModelState, stream: StreamState | ReadFailed
    ) -> Partitions:
        # A projection that is being built is far behind by nature, and would hide how far the others are.
        ready = [state for state in read_model.projections.values() if state.ready]
        starts = [checkpoint for state in ready for checkpoint in state.checkpoints.values()]
        rows = await self._write_model.read_backlog(starts, outbox)
        is_current = not isinstance(stream, ReadFailed) and stream.epoch == outbox.epoch and stream.complete
        last = max(outbox.sequence, stream.last_sequence if is_current else 0)  # type: ignore[union-attr]
        feed = Feed(outbox.epoch, outbox.sequence, last)
        projections = {
            view.projection: (view.source_streams, read_model.projections[view.projection].checkpoints)
            for view in self.views
        }
        return {
            name: {
                number: PartitionState(
                    read_model.holders.get(name.partition(".")[0], {}).get(number, ""), partitions[number]
                )
                for number in range(streams.PARTITIONS)
            }
            for name, partitions in count_unapplied(rows, feed, projections).items()
        }


async def catch(read: Awaitable[T]) -> T | ReadFailed:
    """Return the result, or the failure."""
    try:
        return await read
    except ReadFailed as failure:
        return failure


def _describe_stream(stream: StreamIdentity) -> str:
    complete = "complete" if stream.complete else "being republished"
    return f"{stream.messages} events, last sequence {stream.last_sequence}, {complete}, epoch {stream.epoch}"
