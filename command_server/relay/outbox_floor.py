"""The floor of the outbox: no event at or below this position is pending, or ever will be.

How it works. The relay reads pending events above the floor. Without a floor PostgreSQL would visit the index
entries of all rows marked since the last vacuum (measured after 20,000 marks: 20 ms, with a floor 0.7 ms).
An event takes its position before its transaction commits, so a pending event may still appear below the
highest published one. Time alone does not exclude that: a commit can hang for minutes on a standby that does
not confirm. The floor therefore counts transactions. After a read of the outbox the relay observes the
position that it has published to, and then a snapshot. The floor rises to an observed position in two
steps: first all transactions that had begun by that snapshot must end, then the relay must read the outbox
again and publish everything that it finds up to the position.
"""

from collections import deque

from command_server.relay.outbox_rows import TransactionSnapshot

MIN_AGE = 10.0
"""Seconds before an observation counts. A writer may have taken a position and no transaction id yet;
`transaction_timeout` ends it after 5."""
MAX_OBSERVATIONS = 100
"""Observations that are kept while an old transaction holds the floor down. Further ones are dropped."""


class OutboxFloor:
    """Rises behind the published positions, with a delay of some seconds."""

    def __init__(self) -> None:
        self.position = 0
        self._observations: deque[tuple[int, float, TransactionSnapshot]] = deque()
        self._previous_snapshot = TransactionSnapshot(0, 0)

    def observe(self, published_to: int, now: float, snapshot: TransactionSnapshot) -> None:
        """Record the progress of publishing and raise the floor if possible.

        Args:
            published_to: all events up to this position that the latest read of the outbox could see are
            published.
            now: seconds on a monotonic clock.
            snapshot: taken after that read.
        """
        if len(self._observations) < MAX_OBSERVATIONS:
            self._observations.append((published_to, now, snapshot))
        while self._observations:
            position, observed_at, observed = self._observations[0]
            # The previous snapshot, not this one: the latest read has seen every transaction that had ended
            # before the read began, but not one that ended between the read and this snapshot.
            all_ended = self._previous_snapshot.xmin >= observed.xmax
            if position > published_to or now - observed_at < MIN_AGE or not all_ended:
                break
            self.position = position
            self._observations.popleft()
        self._previous_snapshot = snapshot
