"""The readers of sagas and the acts on them, over connections of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.manifest import Manifest
from operations_server.acts import OperatorActs
from operations_server.dead_letters.saga_letters import SagaLetters
from operations_server.records.database import Database
from operations_server.sagas.acts import SagaActs
from operations_server.sagas.handlers import SagaDetailsReader, SagaHandlers
from operations_server.sagas.lists import SagaLists
from operations_server.sagas.scans import SagaScanner
from operations_server.sagas.term_index import TermSegments
from operations_server.sagas.term_search import TermSearch
from operations_server.sagas.terms import SagaTerms
from process_manager.feeds.stream_reads import read_stream_from
from process_manager.postgres.store import SagaStore
from process_manager.queries.saga_reader import SagaReader
from process_manager.saga import Saga
from runtime import jetstream
from runtime.grpc.method import Handler
from runtime.grpc.request_tokens import RequestTokens
from runtime.process.contexts import load_parts


class Sagas:
    """Lists, shows, retries and aborts instances of sagas.

    Args:
        database_url: `postgresql://…`.
        manifests: the contexts whose sagas are known.

    Raises:
        StartError: a context lacks a module that its manifest names.
    """

    def __init__(self, database_url: str, manifests: Sequence[Manifest]) -> None:
        self._sagas = {saga.name: saga for saga in load_parts(manifests, "sagas", "SAGAS", Saga)}
        self._terms = SagaTerms(self._sagas.values())
        self._database = Database(database_url, pool_size=2)
        self._store = SagaStore(database_url)
        self.segments = TermSegments(self._terms)
        """Builds the index of terms."""
        self.letters = SagaLetters(self._database, self._sagas.values())

    def create_acts(self, database: AsyncEngine, nats: jetstream.Connection) -> SagaActs:
        """Return the acts.

        Args:
            database: in the role of the operations server, to read.
            nats: for the events on which an instance has failed.
        """
        reader = SagaReader(database, self._sagas.values())
        return SagaActs(self._store, self._sagas, reader, read_stream_from(nats))

    def create_handlers(
        self, database: AsyncEngine, saga_acts: SagaActs, tokens: RequestTokens, acts: OperatorActs
    ) -> Mapping[str, Handler]:
        """Return the handlers by the names of their methods.

        Args:
            database: in the role of the operations server, to read.
            saga_acts: does the acts.
            tokens: mints and reads page tokens.
            acts: records acts.
        """
        sagas: Mapping[str, Saga[Any]] = self._sagas
        reader = SagaReader(database, sagas.values())
        search = TermSearch(self._database, self._terms)
        lists = SagaLists(sagas, SagaScanner(database, reader), search, tokens)
        return SagaHandlers(lists, SagaDetailsReader(sagas, reader), saga_acts).create(acts)

    async def close(self) -> None:
        await self._database.close()
        await self._store.close()
