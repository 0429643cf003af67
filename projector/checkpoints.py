"""How far the reader of some partitions has come in one stream. Pure."""

from collections.abc import Iterable, Mapping


class Checkpoints:
    """The place that each partition has in one stream, as the store knows it.

    Args:
        epoch: of the stream.
        stored: partition to `<epoch>/<sequence>` as the store has it. Of another epoch, it means nothing.
        partitions: those that are read.
    """

    def __init__(self, epoch: str, stored: Mapping[int, str], partitions: Iterable[int]) -> None:
        self._epoch = epoch
        self._stored = {partition: stored[partition] for partition in partitions}
        self._sequences = {partition: self._sequence(place) for partition, place in self._stored.items()}

    def _sequence(self, place: str) -> int:
        epoch, _, sequence = place.partition("/")
        return int(sequence) if epoch == self._epoch else 0

    @property
    def starts(self) -> Mapping[int, int]:
        """The sequence at which each partition goes on."""
        return {partition: sequence + 1 for partition, sequence in self._sequences.items()}

    def advances(
        self, sequences: Mapping[int, int], also: Iterable[int] = ()
    ) -> Mapping[int, tuple[str, str]]:
        """Return old and new place of partitions; of all where none is named.

        Args:
            sequences: how far some have come.
            also: others, which have stayed where they are.
        """
        named = {*sequences, *also} or self._stored
        return {
            partition: (
                self._stored[partition],
                f"{self._epoch}/{sequences.get(partition, self._sequences[partition])}",
            )
            for partition in named
        }

    def moved(self, advances: Mapping[int, tuple[str, str]]) -> None:
        """Take note of moves that the store has made."""
        for partition, (_, new) in advances.items():
            self._stored[partition] = new
            self._sequences[partition] = self._sequence(new)
