"""How far one reader of some partitions has come, and what it still has to reach. Pure."""

from collections.abc import Iterable, Mapping


class Progress:
    """The place that each partition has in one stream, as the store knows it.

    A reader returns the messages of all its partitions in one order, so once a sequence has been worked off,
    it is the progress of every partition, whether or not that had a message; else a quiet partition would
    have everything read again after each start.

    Args:
        epoch: of the stream.
        stored: partition to `<epoch>/<sequence>` as the store has it. Of another epoch, it means nothing.
        partitions: those that are read.
    """

    def __init__(self, epoch: str, stored: Mapping[int, str], partitions: Iterable[int]) -> None:
        self._epoch = epoch
        self._stored = {partition: stored[partition] for partition in partitions}
        self._sequences = {partition: self._sequence(place) for partition, place in self._stored.items()}
        self.reached = min(self._sequences.values())
        """The sequence up to which everything is in the views."""

    def _sequence(self, place: str) -> int:
        epoch, _, sequence = place.partition("/")
        return int(sequence) if epoch == self._epoch else 0

    def lacks(self, partition: int, sequence: int) -> bool:
        """Return whether the views lack this message of a partition."""
        return sequence > self._sequences[partition]

    def moves(self, sequence: int) -> Mapping[int, tuple[str, str]]:
        """Return what to set, partition to old and new place, once everything up to `sequence` is done."""
        return {
            partition: (old, f"{self._epoch}/{max(sequence, self._sequences[partition])}")
            for partition, old in self._stored.items()
        }

    def moved(self, moves: Mapping[int, tuple[str, str]]) -> None:
        """Take note of moves that the store has made."""
        for partition, (_, new) in moves.items():
            self._stored[partition] = new
            self._sequences[partition] = self._sequence(new)
        self.reached = min(self._sequences.values())
