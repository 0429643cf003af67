"""Reads events from JetStream and hands them to the sagas, in the partitions that this process has leased.

How it works:

- A feed is one type of stream in one partition, for one saga. All feeds share one reading of the stream
  (`SharedReader`). A `FeedGroup` has the feeds of one saga and stream type; near the end of the stream they
  have one cursor, and each feed that is far behind has its own.
- A cursor begins behind the checkpoints in PostgreSQL. A checkpoint of another epoch belongs to a stream that
  was recreated; reading then begins at sequence 1, and events are skipped by version that were processed.
- What a cursor returns is delivered at once, feed by feed but all together, so that it shares a transaction.
  The checkpoint advances in the transaction that delivers the events, so that none is lost or delivered twice
  even if this process is killed.
- Events that only set or end deadlines wait for those that follow within a moment: most deadlines end so
  soon that their rows are never written. A deadline may fire late by that moment, if it is as short.
- Nothing needs acknowledgements. After any error, such as a lost reading, a `CheckpointConflict` or an outage
  of PostgreSQL, the checkpoints are read again. A feed whose delivery failed then has a cursor of its own, so
  that it delays no other one.
"""

import asyncio
from collections.abc import Collection

from process_manager.deadlines.deadlines import Deadlines
from process_manager.engine import Engine
from process_manager.feeds.feed_group import FeedGroup
from process_manager.feeds.feed_source import Source
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.leases import Leases
from process_manager.postgres.store import SagaStore
from process_manager.queries.feed_reader import FeedReader
from runtime.jetstream import Connection, PublicationClock, SharedReader
from runtime.process.lifecycle import cancel_and_wait


class EventConsumer:
    """Consumes the events of the partitions that this process has leased.

    Args:
        connection: to NATS.
        engine: delivers the events to the sagas.
        store: reads the checkpoints.
        leases: the leased partitions.
        replayer: delivers parked streams.
        deadlines: delivers the events of sagas with deadlines.
        publications: the relay's replies; None if nobody needs them.
    """

    def __init__(
        self,
        connection: Connection,
        engine: Engine,
        store: SagaStore,
        leases: Leases,
        replayer: StreamReplayer,
        deadlines: Deadlines,
        publications: PublicationClock | None = None,
    ) -> None:
        self.reader = SharedReader(connection, lambda: leases.partitions, publications)
        source = Source(connection, self.reader, FeedReader(store.statements), leases, replayer)
        self._groups: Collection[FeedGroup] = [
            FeedGroup(
                saga,
                subscription.stream_type,
                source,
                engine.begin,
                (deadlines if saga.name in deadlines.sagas else engine).deliver_events,
                batches=saga.name in deadlines.sagas,
            )
            for saga in engine.sagas.values()
            for subscription in saga.subscribes_to
        ]

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until the process stops; restart after every error."""
        checks = asyncio.create_task(self.reader.run())
        groups = [asyncio.create_task(group.run(stopping)) for group in self._groups]
        try:
            await asyncio.gather(*groups)
        finally:
            await cancel_and_wait(checks, *groups)
