"""The best-known event sourcing library of Python as a contestant, on the same PostgreSQL."""

import asyncio
import os
from sys import executable
from urllib.parse import urlsplit

from bench.comparison import Sample

THREADS = (1, 2, 4, 8, 16, 32)
TRIAL, ORDERS = 300, 1_500
"""Orders that are changed to find out how many threads are best, and in a turn."""


class Rival:
    """Runs `bench.baseline_orders` in a process of its own, with as many threads as suit it best.

    Args:
        database_url: where it keeps its tables, in a schema of their own.
    """

    def __init__(self, database_url: str) -> None:
        url = urlsplit(database_url)
        self._environment = {
            **os.environ,
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": url.path.strip("/"),
            "POSTGRES_HOST": url.hostname or "",
            "POSTGRES_PORT": str(url.port),
            "POSTGRES_USER": url.username or "",
            "POSTGRES_PASSWORD": url.password or "",
            "POSTGRES_POOL_SIZE": str(max(THREADS)),
        }
        self._threads = 0

    async def run(self) -> Sample:
        """Load, change and save orders."""
        if not self._threads:
            rates = {threads: await self._changed(threads, TRIAL) for threads in THREADS}
            self._threads = max(rates, key=rates.__getitem__)
            print(f"  eventsourcing does best with {self._threads} threads", flush=True)
        return Sample(await self._changed(self._threads, ORDERS))

    async def _changed(self, threads: int, orders: int) -> float:
        process = await asyncio.create_subprocess_exec(
            executable,
            "-m",
            "bench.baseline_orders",
            str(threads),
            str(orders),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"eventsourcing: {error.decode().strip().splitlines()[-1]}")
        return float(out)
