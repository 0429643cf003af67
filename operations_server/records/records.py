"""The readers of records, over connections of their own."""

import asyncio
from collections.abc import Sequence

from contracts.manifest import Manifest
from operations_server.records.database import Database
from operations_server.records.event_reader import EventReader
from operations_server.records.event_tail import EventTail
from operations_server.records.index_builder import IndexBuilder, Segments
from operations_server.records.request_reader import RequestReader
from operations_server.records.settled import Settled
from operations_server.records.state_folder import StateFolder
from runtime.subject_keys import SubjectKeys


class Records:
    """Reads requests, events and states, and keeps their index.

    Args:
        database_url: `postgresql://…`.
        manifests: the contexts whose events are decoded and folded.
        stopping: set when the process stops.
        segments: of further indexes that are kept behind the write.
        keys: open events; None to leave what is sealed as it is.
    """

    def __init__(
        self,
        database_url: str,
        manifests: Sequence[Manifest],
        stopping: asyncio.Event,
        segments: Sequence[Segments] = (),
        keys: SubjectKeys | None = None,
    ) -> None:
        self.database = Database(database_url, keys=keys)
        self._builder_database = Database(database_url, statement_timeout=5.0, pool_size=1)
        self.settled = Settled(self.database)
        self.events = EventReader(self.database)
        self.requests = RequestReader(self.database)
        self.tail = EventTail(self.events, self.settled, stopping)
        self.states = StateFolder(self.database, manifests)
        self.index_builder = IndexBuilder(self._builder_database, *segments)

    async def close(self) -> None:
        self.tail.close()
        self.settled.close()
        await self.database.close()
        await self._builder_database.close()
