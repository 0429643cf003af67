"""Verifies and decodes messages of the stream, also those that the relay has not published.

How it works. A stream names in its metadata the keys with which the relay signs. A process reads a stream
only if it has all of them, so a key that it lacks, or that was revoked, delays the reading and skips nothing.
A message of any other key, or with a wrong signature, is foreign: it is counted and passed over.
"""

from collections.abc import Sequence
from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from contracts import feed_signatures
from contracts.envelope import RecordedEvent, from_message
from contracts.key_ring import Key, Purpose
from contracts.signed_tokens import GetKeyRing, TokenSigner
from runtime.grpc.health import NotReady
from runtime.jetstream.stream import Message, StreamIdentity, read_stream_identity
from runtime.process import logs
from runtime.telemetry.metrics import FOREIGN_MESSAGES

MAX_FOREIGN_KEYS = 1_000
"""Ids that are remembered as foreign; each costs one question to JetStream."""

log = logs.get_logger(__name__)
_foreign = logs.LimitedErrors(log, "Foreign message in the stream; skipped")


class KeysMissing(nats.errors.Error):
    """The stream cannot be verified here: it is not signed, or not with keys that this process has."""


class StreamReplaced(nats.errors.Error):
    """The stream was replaced while messages were read from it."""


def decode_event(message: Message, key: Key | None, epoch: str) -> RecordedEvent | None:
    """Return a message's event; None if the relay has not published the message at this place.

    Args:
        message: as it was read.
        key: that the message names; None if the stream has no such key.
        epoch: of the stream from which it was read.
    """
    if not is_signed(message, key, epoch):
        return None
    try:
        return from_message(message.subject, message.headers, message.data)
    except (KeyError, ValueError, IndexError):
        return None


def is_signed(message: Message, key: Key | None, epoch: str) -> bool:
    """Return whether the relay has published a message at this place; the arguments are `decode_event`'s."""
    return key is not None and feed_signatures.is_valid(
        key, epoch, message.sequence, message.subject, message.headers, message.data
    )


def report_foreign(message: Message) -> None:
    """Count a message that the relay has not published, and log it."""
    FOREIGN_MESSAGES.add(1)
    _foreign.report(subject=message.subject, at=message.sequence)


class FeedVerifier:
    """Finds the keys of the stream's messages.

    Args:
        js: the JetStream context.
        get_ring: returns the current keys.
    """

    def __init__(self, js: JetStreamContext, get_ring: GetKeyRing) -> None:
        self._js = js
        self._get_ring = get_ring
        self._replies = TokenSigner(Purpose.FEED, get_ring)
        self._epoch = ""
        """Of the stream that `decode` has met last; empty before the first one."""
        self._foreign_keys: set[str] = set()
        self._error = ""
        FOREIGN_MESSAGES.add(0)  # an alert sees an increase only of what it has seen before

    def check_ready(self) -> None:
        """Check that the stream could be verified when it was checked last.

        Raises:
            NotReady: it could not.
        """
        if self._error:
            raise NotReady(self._error)

    def check(self, identity: StreamIdentity) -> None:
        """Check that the messages of a stream can be verified.

        Raises:
            KeysMissing: they cannot.
        """
        ring = self._get_ring()
        missing = [each for each in sorted(identity.keys) if feed_signatures.find_key(ring, each) is None]
        self._error = ""
        if not identity.keys:
            self._error = "the stream is not signed: its relay is of an earlier release"
        elif missing:
            keys = ", ".join(missing)
            self._error = f"the stream is signed with keys that are unknown or revoked here: {keys}"
        if self._error:
            raise KeysMissing(self._error)

    def verify_reply(self, reply: Msg) -> bytes:
        """Return what the relay has replied.

        Raises:
            InvalidToken: the relay has not sent this, or not as the reply to this request.
        """
        return self._replies.verify(reply.data.decode(errors="replace"), reply.subject)

    async def find_keys(self, messages: Sequence[Message], epoch: str) -> list[Key | None]:
        """Return the key that each message names; None for one that is none of the stream's.

        Args:
            messages: that were read.
            epoch: of their stream, which `check` has accepted.

        Raises:
            KeysMissing: the relay signs with a key that is unknown or revoked here.
            nats.errors.Error: JetStream cannot be reached, or the stream was replaced.
        """
        ring = self._get_ring()
        ids = [feed_signatures.name_key(message.headers) for message in messages]
        keys = {each: feed_signatures.find_key(ring, each) for each in set(ids)}
        unknown = {each for each, key in keys.items() if each and key is None} - self._foreign_keys
        if unknown:
            identity = await read_stream_identity(self._js)
            if identity is None or identity.epoch != epoch:
                raise StreamReplaced("the stream was replaced")
            self.check(identity)
            if len(self._foreign_keys) + len(unknown) > MAX_FOREIGN_KEYS:
                self._foreign_keys.clear()
            self._foreign_keys |= unknown
        return [keys[each] for each in ids]

    async def learn_epoch(self) -> None:
        """Read the epoch of the stream unless one is known, as it has to be before messages are read.

        Raises:
            KeysMissing: the messages of the stream cannot be verified.
            nats.errors.Error: JetStream cannot be reached.
        """
        if not self._epoch:
            self._epoch = await self._read_epoch()

    async def decode(self, messages: Sequence[Message]) -> list[RecordedEvent]:
        """Return the events of messages that no consumer has delivered, without foreign ones.

        Raises:
            KeysMissing: the relay signs with a key that is unknown or revoked here.
            nats.errors.Error: JetStream cannot be reached, or the stream was replaced.
        """
        events: Sequence[RecordedEvent | None] = [None]
        with suppress(StreamReplaced):
            events = await self.decode_at(messages, self._epoch)
        if None in events:
            known, self._epoch = self._epoch, await self._read_epoch()
            if known != self._epoch:  # the messages may be of either stream
                raise StreamReplaced("the stream was replaced")
            for message, event in zip(messages, events, strict=True):
                if event is None:
                    report_foreign(message)
        return [event for event in events if event is not None]

    async def decode_at(self, messages: Sequence[Message], epoch: str) -> list[RecordedEvent | None]:
        """Return the event of each message; None for one that no relay has published at its place.

        Args:
            messages: that were read.
            epoch: of their stream, which `check` has accepted.

        Raises:
            KeysMissing: the relay signs with a key that is unknown or revoked here.
            nats.errors.Error: JetStream cannot be reached, or the stream was replaced.
        """
        keys = await self.find_keys(messages, epoch)
        return [decode_event(each, key, epoch) for each, key in zip(messages, keys, strict=True)]

    async def _read_epoch(self) -> str:
        identity = await read_stream_identity(self._js)
        if identity is None:
            raise StreamReplaced("there is no stream")
        self.check(identity)
        return identity.epoch
