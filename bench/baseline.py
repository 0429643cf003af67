"""The baseline: `eventsourcing`, the best-known event sourcing library for Python, on the same PostgreSQL."""

import asyncio
import os
from sys import executable
from urllib.parse import urlsplit

from bench.comparison import Sample

THREADS = (1, 2, 4, 8, 16, 32)
TRIAL_ORDERS, ORDERS = 300, 1_500
"""Orders changed in a trial of one number of threads, and in a run."""


class Baseline:
    """Runs `bench.baseline_orders` in a process of its own, with the number of threads that is fastest there.

    Args:
        database_url: of the database in which it creates its tables, in a schema of their own.
    """

    def __init__(self, database_url: str) -> None:
        url = urlsplit(database_url)
        self._variables = {
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
        """Load, change and save orders; the first run also tries all numbers of threads."""
        if not self._threads:
            rates = {threads: await self._measure_rate(threads, TRIAL_ORDERS) for threads in THREADS}
            self._threads = max(rates, key=rates.__getitem__)
            print(f"  eventsourcing is fastest with {self._threads} threads", flush=True)
        return Sample(await self._measure_rate(self._threads, ORDERS))

    async def _measure_rate(self, threads: int, orders: int) -> float:
        """Return how many orders are changed per second."""
        process = await asyncio.create_subprocess_exec(
            executable,
            "-m",
            "bench.baseline_orders",
            str(threads),
            str(orders),
            env=self._variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"eventsourcing: {error.decode().strip().splitlines()[-1]}")
        return float(out)
