"""The stream, and how far the feeds of one saga and stream type have read it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from contracts import streams
from process_manager.feeds.stream_replayer import StreamReplayer
from process_manager.leases import Leases
from process_manager.postgres.due_work import NO_CHECKPOINT, Checkpoint, Feed
from process_manager.queries.feed_reader import FeedReader
from runtime.jetstream import Connection, SharedReader, StreamIdentity, request_recreation


class EventsRemoved(Exception):
    """The stream lacks events that a saga needs; the relay was asked to recreate it."""


@dataclass(frozen=True)
class Source:
    """The stream, and the records of how far its feeds are.

    Args:
        connection: to NATS.
        reader: the shared reading.
        feeds: reads checkpoints and parked streams.
        leases: the leased partitions.
        replayer: delivers parked streams.
    """

    connection: Connection
    reader: SharedReader
    feeds: FeedReader
    leases: Leases
    replayer: StreamReplayer


class FeedSource:
    """The feeds of one saga and stream type.

    Args:
        saga: the saga's name.
        stream_type: the type.
        source: of the events.
    """

    def __init__(self, saga: str, stream_type: str, source: Source) -> None:
        self.saga = saga
        self.stream_type = stream_type
        self.source = source
        self._positions: dict[int, Checkpoint] = {}
        """By partition, up to where a feed has nothing but what was delivered, as this process knows."""

    def name_feed(self, partition: int) -> Feed:
        return Feed(self.saga, self.stream_type, partition)

    async def read_checkpoints(self, partitions: Collection[int]) -> dict[int, Checkpoint]:
        """Return the checkpoints by partition."""
        checkpoints = await self.source.feeds.read_checkpoints([self.saga])
        return {each: checkpoints.get(self.name_feed(each), NO_CHECKPOINT) for each in partitions}

    def find_starts(self, checkpoints: Mapping[int, Checkpoint], identity: StreamIdentity) -> dict[int, int]:
        """Return the first sequences to read, by partition."""
        starts = {}
        for partition, (epoch, sequence) in checkpoints.items():
            known_epoch, known = self._positions.get(partition, NO_CHECKPOINT)
            is_known = known_epoch == identity.epoch and known <= identity.last_sequence
            starts[partition] = max(sequence if epoch == identity.epoch else 0, known if is_known else 0) + 1
        return starts

    def note_positions(self, epoch: str, positions: Mapping[int, int]) -> None:
        """Record up to where the feeds have nothing but what was delivered."""
        self._positions.update({partition: (epoch, position) for partition, position in positions.items()})

    def note_delivery(self, partition: int, sequence: int) -> None:
        """Discard all positions if one of them has passed over an event that was delivered now."""
        if sequence <= self._positions.get(partition, NO_CHECKPOINT)[1]:
            self._positions.clear()

    def forget_positions(self, partitions: Collection[int]) -> None:
        """Let these feeds begin at their checkpoints. After an error, nothing shows a wrong position."""
        for partition in partitions:
            self._positions.pop(partition, None)

    async def check_removed(self, checkpoints: Collection[Checkpoint], identity: StreamIdentity) -> None:
        """Check that the stream has all events behind these checkpoints.

        Raises:
            EventsRemoved: it lacks some; they were requested again.
        """
        for checkpoint in checkpoints:
            if not identity.has_events_after(checkpoint):
                await request_recreation(self.source.connection, identity.epoch)
                raise EventsRemoved(
                    f"housekeeping has removed events after {checkpoint}; requested them again"
                )

    async def request_replays(self, partitions: Collection[int]) -> None:
        """Have the parked streams of these partitions delivered."""
        for parked in await self.source.feeds.read_parked_streams([self.saga]):
            partition = streams.partition(streams.aggregate_id(parked.stream))
            if streams.stream_type(parked.stream) == self.stream_type and partition in partitions:
                self.source.replayer.request(self.name_feed(partition), [parked.stream])
