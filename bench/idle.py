"""The CPU time of all processes of a stack that has nothing to do."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bench.comparison import Results, Sample
from bench.hosted_stack import ROOT, RunningSystem, run_stack
from bench.process_cost import CpuMeter

IDLE = "idle, % of a core"
SETTLING_SECONDS = 5.0
"""After the start, until nothing of it is left: leases, first checks, garbage collection."""
PERCENT = 100 / 1e6
"""From microseconds of CPU a second to per cent of a core."""


async def measure(rounds: int, seconds: float, variables: Mapping[str, str], root: Path = ROOT) -> Results:
    """Return the CPU time a second of a stack with one process of each kind, in successive windows."""
    async with run_stack(root, process_managers=1, variables=variables) as stack:
        await asyncio.sleep(SETTLING_SECONDS)
        return {IDLE: [await measure_window(stack.system, seconds) for _ in range(rounds)]}


async def measure_window(system: RunningSystem, seconds: float) -> Sample:
    """Return the CPU time a second by process."""
    meter = CpuMeter(system.processes)
    await asyncio.sleep(seconds)
    return Sample(1.0, cpu={name: cost / seconds for name, cost in meter.measure(1).items()})
