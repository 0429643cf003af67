"""The events of dead letters."""

from collections.abc import Sequence

from diptych.operations.v1.dead_letters_pb2 import DeadLetter, DeadLetterDetails

from operations_server.records.content import Content
from operations_server.records.database import Database
from operations_server.records.event_messages import build_event, open_data

READ_EVENT = """
SELECT position, stream, version, type, metadata::text AS metadata, recorded_at, data FROM events
WHERE stream = $1 AND version = $2
"""
READ_VERSIONS = "SELECT id, version FROM streams WHERE id = ANY($1)"


class LetterEvents:
    """Reads events of dead letters from PostgreSQL.

    Args:
        database: its connections.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def describe(self, letters: Sequence[DeadLetter], content: Content) -> list[DeadLetterDetails]:
        """Return dead letters with their events.

        Args:
            letters: a few.
            content: how much of the events is shown.
        """
        names = list({letter.stream for letter in letters})
        versions = dict(await self._database.fetch(READ_VERSIONS, names))
        return [await self._describe(letter, versions.get(letter.stream, 0), content) for letter in letters]

    async def _describe(self, letter: DeadLetter, latest: int, content: Content) -> DeadLetterDetails:
        details = DeadLetterDetails(
            dead_letter=letter, waiting_events=max(0, latest - letter.version) if letter.version else 0
        )
        for row in await self._database.fetch(READ_EVENT, letter.stream, letter.version):
            data = await open_data(self._database, row, row["data"], content)
            details.event.CopyFrom(build_event(row, data, content))
        return details
