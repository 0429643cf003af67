"""`make bench-long-streams`: commands on streams of a million events, and on other streams meanwhile.

`python -m bench.long_streams alone many beside ceiling` runs the named measurements. The ceiling is what
the other streams' commands get beside a process that does nothing but use one core.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import uvloop
from diptych.banking.v1.command_service_pb2 import DepositRequest, OpenAccountRequest
from diptych.banking.v1.command_service_pb2_grpc import CommandServiceStub
from google.type.money_pb2 import Money

from bench.environment import get_pid
from bench.load_generator import LoadGenerator, LoadResult, write_requests
from bench.long_accounts import write_account
from bench.process_cost import read_memory
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROJECTOR, RELAY
from runtime.process import logs

DEPOSIT = "/diptych.banking.v1.CommandService/Deposit"
LONG = ("alone", "beside")
LONG_EVENTS = 1_000_000
"""Events of the two long streams."""
MANY, MANY_EVENTS = 100, 8_000
"""Streams that are commanded at once, and the events of each."""
CALLERS, RATE = 64, 300
"""Concurrent calls on other streams, and their number a second."""
ACCOUNTS = 1_000
"""Those streams."""
BASELINE_SECONDS = 15.0
BUSY_PROCESSES = {
    "as any other": "",
    "at a low priority": "os.nice(10)",
    "that only runs on idle cores": "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
}
"""What the processes of the ceiling do at first."""
DEADLINE = 120.0
"""Seconds that a measured command may take."""


class LongStreams:
    """The measurements on one running stack."""

    def __init__(self, stack: Stack, generator: LoadGenerator, folder: Path) -> None:
        self._stack, self._generator, self._folder = stack, generator, folder
        (self._server,) = stack.of(COMMAND_SERVER)
        self._token = stack.token(
            "banking.open", "banking.deposit", "banking.pay", "banking.all", subject="bench"
        )

    async def run(self, names: Sequence[str]) -> None:
        measurements = {
            "alone": self._measure_alone,
            "many": self._measure_many,
            "beside": self._measure_beside_others,
            "ceiling": self._measure_ceiling,
        }
        await self._write_accounts(names or measurements)
        async with grpc.aio.insecure_channel(self._server.address) as channel:
            self._stub: Any = CommandServiceStub(channel)
            for first in range(0, ACCOUNTS, CALLERS):
                numbers = range(first, min(first + CALLERS, ACCOUNTS))
                await asyncio.gather(*(self._open_account(f"a-{number}") for number in numbers))
            await self._deposit("a-0")
            for name in names or measurements:
                await measurements[name]()

    async def _write_accounts(self, names: Collection[str]) -> None:
        """Write the long accounts of these measurements."""
        connection = await asyncpg.connect(self._stack.settings.database_url)
        for account_id in filter(names.__contains__, LONG):
            await write_account(connection, account_id, LONG_EVENTS)
        for number in range(MANY if "many" in names else 0):
            await write_account(connection, f"many-{number}", MANY_EVENTS)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
        await connection.close()

    async def _open_account(self, account_id: str) -> None:
        request = OpenAccountRequest(account_id=account_id, owner_id="ada", currency_code="EUR")
        await self._send(self._stub.OpenAccount, request)

    async def _send(self, method: Any, request: Any) -> float:
        """Return the seconds until the command is answered."""
        start, request.request_id = perf_counter(), str(uuid4())
        await method(request, metadata=(("authorization", f"Bearer {self._token}"),), timeout=DEADLINE)
        return perf_counter() - start

    async def _deposit(self, account_id: str) -> float:
        return await self._send(self._stub.Deposit, _build_deposit(account_id))

    async def _measure_alone(self) -> None:
        async with self._watch_memory() as memory:
            first = await self._deposit("alone")
        later = sorted([await self._deposit("alone") for _ in range(100)])
        usual = sorted([await self._deposit("a-0") for _ in range(100)])
        print(
            f"{LONG_EVENTS:,} events: first command {first:.1f} s, {_describe(memory)};"
            f" later ones p50 {later[50] * 1e3:.1f} ms, of a short stream {usual[50] * 1e3:.1f} ms",
            flush=True,
        )

    async def _measure_many(self) -> None:
        async with self._watch_memory() as memory:
            tasks = [self._deposit(f"many-{number}") for number in range(MANY)]
            times = await asyncio.gather(*tasks, return_exceptions=True)
        answered = sorted(time for time in times if isinstance(time, float))
        print(
            f"{MANY} streams of {MANY_EVENTS:,} events at once: {len(answered)} answered,"
            f" half of them within {answered[len(answered) // 2]:.1f} s, all within {answered[-1]:.1f} s,"
            f" {_describe(memory)}",
            flush=True,
        )

    async def _measure_beside_others(self) -> None:
        alone = await self._run_others(BASELINE_SECONDS)
        others = asyncio.create_task(self._run_others(BASELINE_SECONDS))
        await asyncio.sleep(1)  # until the load has begun
        async with self._watch_memory() as memory:
            first = await self._deposit("beside")
        beside = await others
        print(
            f"beside {CALLERS} callers at {RATE}/s: first command {first:.1f} s, {_describe(memory)};"
            f" {_compare(alone, beside)}; statuses {dict(beside.statuses)}, {beside.unsent} not sent",
            flush=True,
        )
        print("  p99 by second:", *(f"{second['p99']:.0f}" for second in beside.timeline), flush=True)

    async def _measure_ceiling(self) -> None:
        alone = await self._run_others(BASELINE_SECONDS)
        for name, prelude in BUSY_PROCESSES.items():
            program = f"import os; {prelude}\nwhile True: pass"
            busy = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
            beside = await self._run_others(BASELINE_SECONDS)
            busy.kill()
            await busy.wait()
            print(f"beside a process that uses a core, {name}: {_compare(alone, beside)}", flush=True)

    async def _run_others(self, seconds: float) -> LoadResult:
        path = self._folder / "deposits"
        write_requests(path, _generate_deposits(int(seconds * RATE * 1.2)))
        return await self._generator.run(
            *(self._server.address, DEPOSIT, path),
            token=self._token,
            seconds=seconds,
            rate=RATE,
            in_flight=CALLERS,
        )

    @asynccontextmanager
    async def _watch_memory(self) -> AsyncIterator[list[int]]:
        """Yield the resident memory of the command server and its helper: at first, and its maximum."""
        pid = get_pid(self._server)
        memory = [_read_memory_of_all(pid)] * 2

        async def watch() -> None:
            while True:
                memory[1] = max(memory[1], _read_memory_of_all(pid))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        yield memory
        watching.cancel()


def _read_memory_of_all(pid: int) -> int:
    """Return the resident memory of a process and its children."""
    memory = read_memory(pid)
    threads = Path(f"/proc/{pid}/task").iterdir()
    for child in {child for each in threads for child in (each / "children").read_text().split()}:
        with suppress(FileNotFoundError, ProcessLookupError, StopIteration, ValueError, IndexError):
            memory += read_memory(int(child))
    return memory


def _compare(alone: LoadResult, beside: LoadResult) -> str:
    """Return the latencies of both runs, in milliseconds, and their ratios."""
    pairs = [(name, alone.latency[name], beside.latency[name]) for name in ("50", "90", "95", "99")]
    return "their " + ", ".join(f"p{name} {a:.1f} -> {b:.1f} ms ({b / a:.2f})" for name, a, b in pairs)


def _describe(memory: list[int]) -> str:
    return f"{(memory[1] - memory[0]) / 1e6:+.0f} MB"


def _build_deposit(account_id: str) -> DepositRequest:
    return DepositRequest(
        account_id=account_id, amount=Money(currency_code="EUR", units=1), reference="one more"
    )


def _generate_deposits(count: int) -> Iterator[DepositRequest]:
    for number in range(count):
        request = _build_deposit(f"a-{number % ACCOUNTS}")
        request.request_id = str(uuid4())
        yield request


async def main() -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        generator = await LoadGenerator.build(folder)
        async with temporary_stack(
            folder / "stack", contexts="banking", durable=True, query_servers=0
        ) as stack:
            for process in (*stack.of(RELAY), *stack.of(PROJECTOR)):
                await process.stop()
            await LongStreams(stack, generator, folder).run(sys.argv[1:])


if __name__ == "__main__":
    logs.configure("warning", "console")
    try:
        uvloop.run(main())
    except RuntimeError as error:
        sys.exit(str(error))
