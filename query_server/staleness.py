"""How far behind a projection may be, told with every answer in trailing metadata."""

import asyncio
from time import time

from contracts.streams import PARTITIONS
from contracts.view_layout import View
from query_server.reader import Reader
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

METADATA = "diptych-staleness-ms"
INTERVAL = 0.5
"""Seconds between two samples."""

log = logs.get_logger(__name__)


class Staleness:
    """Samples up to when a projection held all that was published.

    A sample grows old, and with it the bound; it never becomes too small.
    """

    def __init__(self, reader: Reader, view: View) -> None:
        self._reader = reader
        self._view = view
        self._as_of: int | None = None

    async def run(self) -> None:
        """Sample for ever."""
        while True:
            await self.sample()
            await asyncio.sleep(INTERVAL)

    async def sample(self) -> None:
        """Take one sample; where Redis or a partition is silent, nothing is known."""
        try:
            partitions = (await self._reader.call("HGETALL", self._view.as_of))[1::2]
            self._as_of = min(map(int, partitions)) if len(partitions) == PARTITIONS else None
        except (RpcError, ValueError):
            self._as_of = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata of an answer that is given now; empty where nothing is known."""
        if self._as_of is None:
            return ()
        return ((METADATA, str(max(0, int(time() * 1000) - self._as_of))),)
