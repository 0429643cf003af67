"""Request ids of version 7 for any time."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def request_id_of(time: datetime) -> str:
    """Return a new UUID of version 7 of this time."""
    milliseconds = (time - EPOCH) // timedelta(milliseconds=1)
    random = uuid4()
    return str(UUID(hex=f"{milliseconds:012x}7{random.hex[13:]}"))
