"""Keys of persons, which readers of the stream ask a relay for.

A reader that gets no answer asks again until it does, since it must pass over no event that it could open
later.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Self

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from contracts.envelope import RecordedEvent
from contracts.key_ring import KeyRing
from contracts.personal_data import Keys, TypedData
from contracts.signed_tokens import InvalidToken
from contracts.subject_keys import (
    KEYS_SUBJECT,
    MAX_KEYS,
    KeysRequest,
    MasterKeyMissing,
    RingWrapper,
    WrappedKey,
    decode_reply,
    encode,
)
from runtime.jetstream.stream import Message
from runtime.process import logs
from runtime.subject_keys import SubjectKeys, list_ids, open_event

TIMEOUT = 2.0
"""Seconds to wait for a reply."""
PAUSE = 0.5
"""Seconds between two requests while there is no answer."""
NO_KEYS: Keys = {}
UNANSWERED = (
    *(nats.errors.Error, OSError, TimeoutError),  # no relay, or no NATS
    *(InvalidToken, msgspec.MsgspecError),  # another process has replied
    MasterKeyMissing,
)
"""Errors that end by themselves, or when somebody mends the key ring."""

log = logs.get_logger(__name__)


class EventData(NamedTuple):
    """What a message says of its event."""

    type: str
    data: bytes

    @classmethod
    def of(cls, message: Message) -> Self:
        return cls(message.headers.get("ce-type", ""), message.data)


class RelayedKeys:
    """The keys that open the events of the stream.

    Args:
        get_client: returns the client of NATS.
        get_ring: returns the current keys.
        verify_reply: returns what the relay has replied; raises InvalidToken.
    """

    def __init__(
        self,
        get_client: Callable[[], Client],
        get_ring: Callable[[], KeyRing],
        verify_reply: Callable[[Msg], bytes],
    ) -> None:
        self._get_client = get_client
        self._verify_reply = verify_reply
        self._keys = SubjectKeys(RingWrapper(get_ring))
        self._failures = logs.RepeatedErrors(log, "Keys of persons unknown; waiting")

    async def find(self, events: Sequence[TypedData]) -> Keys:
        """Return the keys that open events.

        Waits for as long as no relay replies, or a master key is missing.
        """
        self._keys.note_destroyed(events)
        ids = list_ids(events)
        while ids:
            try:
                keys = await self._keys.find(ids, self._ask)
            except UNANSWERED as error:
                self._failures.report(error)
                await asyncio.sleep(PAUSE)
            else:
                self._failures.reset()
                return keys
        return NO_KEYS

    async def open(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return events in clear; waits as `find` does."""
        keys = await self.find(events)
        return [open_event(event, event.stream, keys) for event in events] if keys else events

    async def _ask(self, ids: Collection[bytes]) -> list[WrappedKey]:
        wanted, found = list(ids), list[WrappedKey]()
        for at in range(0, len(wanted), MAX_KEYS):
            request = encode(KeysRequest(wanted[at : at + MAX_KEYS]))
            reply = await self._get_client().request(KEYS_SUBJECT, request, timeout=TIMEOUT)
            found += decode_reply(self._verify_reply(reply)).keys
        return found
