"""The checkpoints of one session. Pure."""

from collections.abc import Iterable, Mapping


class Checkpoints:
    """The position of each partition in one stream, and the stored checkpoint that a write has to expect.

    Args:
        epoch: of the stream.
        stored: partition to the stored checkpoint, `<epoch>/<sequence>`. A checkpoint of another epoch counts
            as the start of the stream.
        partitions: the partitions of the session.
    """

    def __init__(self, epoch: str, stored: Mapping[int, str], partitions: Iterable[int]) -> None:
        self._epoch = epoch
        self._stored = {partition: stored[partition] for partition in partitions}
        self._sequences = {
            partition: self._parse_sequence(checkpoint) for partition, checkpoint in self._stored.items()
        }

    def _parse_sequence(self, checkpoint: str) -> int:
        epoch, _, sequence = checkpoint.partition("/")
        # What cannot be read counts as the start, too: views ignore the events that they include.
        return int(sequence) if epoch == self._epoch and sequence.isdecimal() else 0

    @property
    def starts(self) -> Mapping[int, int]:
        """Partition to the first sequence to read."""
        return {partition: sequence + 1 for partition, sequence in self._sequences.items()}

    def plan_advances(self, sequences: Mapping[int, int]) -> Mapping[int, tuple[str, str]]:
        """Return expected and new checkpoints, by partition.

        Args:
            sequences: partition to the last sequence that the write includes.
        """
        return {
            partition: (self._stored[partition], f"{self._epoch}/{sequence}")
            for partition, sequence in sequences.items()
        }

    def record_advances(self, advances: Mapping[int, tuple[str, str]]) -> None:
        """Record that the store has these checkpoints now."""
        for partition, (_, new) in advances.items():
            self._stored[partition] = new
            self._sequences[partition] = self._parse_sequence(new)
