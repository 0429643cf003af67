"""Finds instances whose rows this release cannot read, before an input does, and those it can read again.

It also gives the instances of earlier releases the input that they need (`Saga.needs_input`).

How it works:

- A loop reads the open instances of the leased partitions, a page after the other and from the start again.
  Its pace is fixed, so it finds rows within a second where there are few, and never costs more than a
  page a second.
- `Engine.inspect` marks what cannot be read, so that lists and `diptych status` show it. What can be read
  again, usually after a release, gets the inputs that have waited.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from process_manager.engine import Engine
from process_manager.leases import Leases
from process_manager.postgres.rows import find_error, needs_input
from process_manager.postgres.store import SagaStore
from runtime.process import logs

PAGE_SIZE = 200
INTERVAL = 1.0
"""Seconds between two pages."""

log = logs.get_logger(__name__)


class Inspection:
    """Inspects the instances of the partitions that this process has leased.

    Args:
        engine: marks instances, and delivers the inputs that have waited.
        store: reads the rows.
        leases: the leased partitions.
    """

    def __init__(self, engine: Engine, store: SagaStore, leases: Leases) -> None:
        self._engine = engine
        self._store = store
        self._leases = leases
        self._after = ("", "")

    async def run(self, stopping: asyncio.Event) -> None:
        """Inspect until the process stops."""
        while not stopping.is_set():
            try:
                await self.inspect_page()
            except Exception as error:  # for example, PostgreSQL is unavailable
                log.warning("Inspection of sagas failed", error=repr(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), INTERVAL)

    async def inspect_page(self) -> None:
        """Inspect the next page of instances."""
        sagas, partitions = self._engine.sagas, self._leases.partitions
        if not partitions:
            return
        page = await self._store.progress.read_open(sagas.keys(), partitions, self._after, PAGE_SIZE)
        self._after = (page[-1]["saga"], page[-1]["id"]) if len(page) == PAGE_SIZE else ("", "")
        for saga, id_, unreadable, *columns in page:
            error = find_error(sagas[saga], *columns)
            if bool(error) != unreadable:
                await self._run(self._engine.inspect, saga, id_)
            elif not error and needs_input(sagas[saga], columns[0]):
                await self._run(self._engine.take_over, saga, id_)

    async def _run(self, act: Callable[[str, str], Awaitable[None]], saga: str, id_: str) -> None:
        try:
            await act(saga, id_)
        except Exception as error:  # for example, an event is missing; the others are inspected
            log.warning("Inspection of saga failed", saga=saga, sagaId=id_, error=repr(error))
