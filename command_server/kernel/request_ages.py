"""The ages of request ids: an id of version 7 carries its time, and one too old or too new is refused.

How it works. Answers to repeated requests are kept for a stated time. A repetition that arrives later finds
none; executing it again in silence would be a second effect. An id that carries its time shows that it is
older than the answers that are kept, so it is refused. An id ahead of the clock would escape that, so more
than MAX_AHEAD is refused as well, and housekeeping keeps answers for MAX_AHEAD longer than it says. Ids of
other versions carry no time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_AHEAD = timedelta(days=1)
"""How far the time of a request id may be ahead of this clock."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC_VARIANT = frozenset("89ab")


class RequestTooOld(Exception):
    """The id is older than the answers that are kept; whether it was executed is not on record.

    Args:
        kept_since: the earliest time of an id that is executed.
    """

    def __init__(self, kept_since: datetime) -> None:
        super().__init__(kept_since)
        self.kept_since = kept_since


class RequestTooNew(Exception):
    """The time of the id is more than MAX_AHEAD ahead of the clock."""


@dataclass(frozen=True, slots=True)
class RequestAges:
    """The request ids that may be executed if they are not on record.

    Args:
        retention: how long answers are kept; None for no limit.
        removed_to: answers to requests of ids before this time may have been removed; None for none.
    """

    retention: timedelta | None = None
    removed_to: datetime | None = None

    def check(self, request_id: str, now: datetime) -> None:
        """Check an id that is not on record.

        Args:
            request_id: a UUID as 36 characters in lower case.
            now: the time.

        Raises:
            RequestTooOld, RequestTooNew: it must not be executed.
        """
        # Version and variant of RFC 9562.
        if request_id[14] != "7" or request_id[19] not in _RFC_VARIANT:
            return
        created_at = int(request_id[:8] + request_id[9:13], 16)
        now_ms = (now - _EPOCH) // _MILLISECOND
        if created_at > now_ms + MAX_AHEAD // _MILLISECOND:
            raise RequestTooNew
        if self.retention is not None and created_at < now_ms - self.retention // _MILLISECOND:
            raise RequestTooOld(now - self.retention)
        if self.removed_to is not None and created_at < (self.removed_to - _EPOCH) // _MILLISECOND:
            raise RequestTooOld(self.removed_to)
