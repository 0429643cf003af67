"""Finds out up to where the stream has no further message of a reading.

How it works. A consumer's counts prove nothing: it learns of a message after the store has it, long after if
its server is a follower that lags. So the leader of the stream is asked for the next message of each lane
that is idle. A server that was frozen, and has been replaced as the leader, answers for a moment as if it
still led, and lacks what was stored since. An answer therefore counts only if a request that is sent at the
same time finds the stream's last message. With several servers the former leader can answer the one request
and the new leader the other. So there an end needs two checks that agree, with time between them in which
the former leader learns that it was replaced.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from nats.js import JetStreamContext

from runtime.jetstream.event_log import EventLog
from runtime.jetstream.stream import (
    FORMER_LEADER_TIME,
    StreamIdentity,
    has_message,
    read_next_sequence,
    read_stream_identity,
)


@dataclass(frozen=True, slots=True)
class _Claim:
    """An end that one check has found."""

    sequence: int
    found_at: float
    """On the monotonic clock."""


class EndChecks:
    """Advances the ends of a log's lanes.

    Args:
        js: the JetStream context.
        epoch: of the stream.
        subjects: the subject filter of each lane.
        event_log: the log.
    """

    def __init__(
        self, js: JetStreamContext, epoch: str, subjects: Sequence[str], event_log: EventLog
    ) -> None:
        self._js = js
        self._epoch = epoch
        self._subjects = subjects
        self._log = event_log
        self._known_ends: list[int | None] = [None] * len(subjects)
        self._claims: list[list[_Claim]] = [[] for _ in subjects]

    async def run(self, last_sequence: int) -> None:
        """Advance the lanes that have all messages up to the end that the stream had before this call.

        Raises:
            nats.errors.Error: JetStream cannot be reached.
        """
        idle = [lane for lane in range(len(self._subjects)) if self._is_idle(lane, last_sequence)]
        if not idle:
            return
        began = monotonic()
        reads = (self._read_end(lane, last_sequence) for lane in idle)
        is_current, *ends = await asyncio.gather(has_message(self._js, last_sequence), *reads)
        # Another stream, or none, has no messages that this one may have had.
        identity = await read_stream_identity(self._js)
        if identity is None or identity.epoch != self._epoch:
            return
        # Somebody may have deleted the message at the end, or housekeeping all messages.
        is_gone = identity.first_sequence > last_sequence or not identity.intact
        if is_current or is_gone:
            for lane, end in zip(idle, ends, strict=True):
                self._log.confirm_end(lane, self._prove_end(lane, end, identity, began))
                self._known_ends[lane] = self._log.ends[lane]

    def _is_idle(self, lane: int, last_sequence: int) -> bool:
        """Return whether no message of a lane has shown how far it is read since the last call."""
        end, known = self._log.ends[lane], self._known_ends[lane]
        self._known_ends[lane] = end
        return end < last_sequence and (known is None or end == known)

    async def _read_end(self, lane: int, last_sequence: int) -> int:
        """Return the sequence up to which the stream has nothing of a lane that is not in the log."""
        following = await read_next_sequence(self._js, self._subjects[lane], self._log.ends[lane] + 1)
        return last_sequence if following is None else min(last_sequence, following - 1)

    def _prove_end(self, lane: int, end: int, identity: StreamIdentity, began: float) -> int:
        """Return the end that a check has proved, together with an earlier one; 0 if there is none."""
        if identity.replicas == 1:
            return end
        # All checks since the proving one keep theirs, so that an end is known soon after FORMER_LEADER_TIME.
        claims = [claim for claim in self._claims[lane] if claim.sequence <= end]  # the others were wrong
        proving = [claim for claim in claims if began - claim.found_at >= FORMER_LEADER_TIME]
        self._claims[lane] = [*claims[len(proving) :], _Claim(end, monotonic())]
        return max((claim.sequence for claim in proving), default=0)
