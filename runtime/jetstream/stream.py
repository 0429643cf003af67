"""The stream of all events: its identity, and the last message of an aggregate in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from contracts import streams

# Keys of the stream's metadata, which the relay writes.
EPOCH_KEY = "diptych-epoch"
INCARNATION_KEY = "diptych-incarnation"
COMPLETE_KEY = "diptych-complete"
HISTORY_KEY = "diptych-history"
KEYS_KEY = "diptych-keys"
# Housekeeping writes this key.
REMOVED_KEY = "diptych-removed-to"

FORMER_LEADER_TIME = 1.5
"""Seconds after which a server that answered as the leader of the stream, and was not, has learnt that it was
replaced. The leader sends its followers a heartbeat every second."""


NOT_FOUND = 404
"""JetStream's code for a message or stream that does not exist."""


class _Stored(msgspec.Struct):
    subject: str
    seq: int
    time: datetime
    hdrs: bytes = b""
    data: bytes = b""


class _Answer(msgspec.Struct):
    message: _Stored | None = None
    error: dict[str, Any] | None = None


class Message(msgspec.Struct, frozen=True):
    """A message of the stream."""

    subject: str
    headers: Mapping[str, str]
    data: bytes
    sequence: int
    pending: int
    """Number of later messages for the same reader when it was sent."""
    published_at: datetime | None
    """When JetStream stored it, in UTC; None if `SubjectReader` read it."""


@dataclass(frozen=True)
class StreamIdentity:
    """The stream's identity, from its metadata, and its state."""

    epoch: str
    """A UUID that the relay sets when it creates the stream. Sequences of different epochs are unrelated."""
    incarnation: str
    """The database's incarnation, a UUID. A restore of the database changes it."""
    complete: bool
    """False while the relay still republishes earlier events to a recreated stream."""
    first_sequence: int
    last_sequence: int
    messages: int
    created: datetime | None
    removed_to: int = 0
    """The sequence up to which housekeeping has removed messages, or is about to."""
    has_history: bool = False
    """Whether it has all events that had been published before it was created."""
    denies_purges: bool = False
    """Whether nobody can remove its messages but with the stream."""
    takes_batches: bool = False
    """Whether its configuration allows fast batches (`BatchPublisher`)."""
    keys: frozenset[str] = frozenset()
    """The ids of the keys with which the relay has signed its messages; none before signatures existed."""
    replicas: int = 1
    """The number of servers that store it, of which one leads."""

    @property
    def intact(self) -> bool:
        """Whether no message was deleted or lost since the stream's creation, but by housekeeping."""
        first = max(self.first_sequence, 1)
        return self.messages == self.last_sequence - first + 1 and first <= self.removed_to + 1

    def has_events_after(self, checkpoint: tuple[str, int]) -> bool:
        """Return whether a reader at this checkpoint, epoch and sequence, gets every later event.

        Before housekeeping removes messages it advances every checkpoint beyond them.
        """
        epoch, sequence = checkpoint
        return self.removed_to <= (sequence if epoch == self.epoch else 0)


async def read_stream_identity(js: JetStreamContext) -> StreamIdentity | None:
    """Return the stream's identity, or None if there is no stream created by a relay.

    Raises:
        nats.errors.Error: JetStream cannot be reached.
    """
    try:
        info = await js.stream_info(streams.JETSTREAM)
    except NotFoundError:
        return None
    metadata = info.config.metadata or {}
    if EPOCH_KEY not in metadata:
        return None
    return StreamIdentity(
        epoch=metadata[EPOCH_KEY],
        incarnation=metadata.get(INCARNATION_KEY, ""),
        complete=metadata.get(COMPLETE_KEY) == "true",
        first_sequence=info.state.first_seq,
        last_sequence=info.state.last_seq,
        messages=info.state.messages,
        created=info.created,
        removed_to=int(metadata.get(REMOVED_KEY, 0)),
        has_history=metadata.get(HISTORY_KEY) == "true",
        denies_purges=bool(info.config.deny_purge),
        takes_batches=bool(info.config.allow_batched),
        keys=frozenset(filter(None, metadata.get(KEYS_KEY, "").split(","))),
        replicas=info.config.num_replicas or 1,
    )


async def read_next_sequence(js: JetStreamContext, subject: str, start: int) -> int | None:
    """Return the sequence of the first message from `start` on that matches; None if the leader has none.

    Raises:
        nats.errors.Error: JetStream cannot be reached.
    """
    try:
        message = await js.get_msg(streams.JETSTREAM, seq=start, subject=subject, next=True, direct=False)
    except NotFoundError:
        return None
    return message.seq


async def has_message(js: JetStreamContext, sequence: int) -> bool:
    """Return whether the leader's store has a message.

    A server that was frozen and has been replaced as the leader answers for a moment as if it still led. It
    then lacks what was stored since, and says that a subject has no later message. So such an answer counts
    only if the server that is asked at the same time has the stream's last message. With several replicas the
    two requests may be answered by two servers, so both are sent again after FORMER_LEADER_TIME.

    Raises:
        nats.errors.Error: JetStream cannot be reached.
    """
    try:
        await js.get_msg(streams.JETSTREAM, seq=sequence, direct=False)
    except NotFoundError:
        return False
    return True


async def read_last_message(js: JetStreamContext, subject: str) -> Message | None:
    """Return the last message of one subject, or of those that match a pattern; None if the leader has none.

    Other replicas are not asked, since they may lag behind. The client's own way changes headers that are
    not ASCII.

    Raises:
        nats.errors.Error: JetStream cannot be reached.
    """
    request = msgspec.json.encode({"last_by_subj": subject})
    reply = await js._nc.request(
        f"{js._prefix}.STREAM.MSG.GET.{streams.JETSTREAM}", request, timeout=js._timeout
    )
    answer = msgspec.json.decode(reply.data, type=_Answer)
    if answer.error is not None:
        if answer.error.get("code") == NOT_FOUND:
            return None
        raise APIError.from_error(answer.error)
    if (stored := answer.message) is None:
        raise nats.errors.Error("JetStream has answered without a message")
    headers = await js._nc._process_headers(stored.hdrs) if stored.hdrs else None
    return Message(stored.subject, headers or {}, stored.data, stored.seq, 0, stored.time)
