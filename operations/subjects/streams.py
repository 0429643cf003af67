"""The streams with data of a person, found in the events themselves.

How it works. One scan of `events` selects those that name the person or their key, of the types that may be
sealed. So no table has to be kept that another record, or a restored backup, could contradict. It takes as
long as PostgreSQL takes to read the table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.forgetting import FORGOTTEN
from contracts.personal_data import has_clear_data, list_key_ids, may_be_sealed

SCAN = text("""
SELECT stream, type, data FROM events WHERE type = ANY(:types)
  AND (position(:subject in data) > 0 OR position(:key in data) > 0)
""")
PAGE = 2_000
"""Events that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """An event, as it was recorded."""

    type: str
    data: bytes


@dataclass(slots=True)
class PersonalStreams:
    """The streams with data of a person."""

    sealed: set[str] = field(default_factory=set)
    """Those with data that is sealed with the person's key."""
    ended: set[str] = field(default_factory=set)
    """Those with the event that says that the person was forgotten."""
    clear: set[str] = field(default_factory=set)
    """Those with data in clear, from before the first master key."""
    events: int = 0
    """The number of events with sealed data."""


async def find_streams(
    database: AsyncEngine, types: Iterable[str], subject: str, key_id: bytes
) -> PersonalStreams:
    """Return the streams with data of a person.

    Args:
        database: with the right to read events.
        types: the full names of all installed types of events.
        subject: the person's id.
        key_id: of the person's key; empty without one.
    """
    found, selected = PersonalStreams(), [FORGOTTEN, *filter(may_be_sealed, types)]
    values = {"types": selected, "subject": subject.encode(), "key": key_id or subject.encode()}
    async with database.connect() as connection, connection.stream(SCAN, values) as rows:
        async for page in rows.partitions(PAGE):
            _sort(found, page, subject, key_id)
    return found


def _sort(found: PersonalStreams, rows: Sequence[Any], subject: str, key_id: bytes) -> None:
    for stream, type_, data in rows:
        row = Row(type_, data)
        if type_ == FORGOTTEN:
            if key_id and key_id in data:
                found.ended.add(stream)
        elif key_id in list_key_ids(row):
            found.sealed.add(stream)
            found.events += 1
        elif has_clear_data(row, subject):
            found.clear.add(stream)
