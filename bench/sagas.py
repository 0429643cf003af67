"""Orders that the process manager fulfils: what that costs beyond the commands, how many, and how soon.

An order counts as fulfilled once it is confirmed: placed, assessed, its stock reserved, its money held, both
made firm, and confirmed. Three runs of a round send the same seven commands for each order, each on a stack
of its own:

- *managed*: the caller places orders, and the process manager sends the other commands;
- *direct*: the caller sends all of them, and no process manager runs;
- *by hand*: `bench.orchestrator` takes the process manager's place.

The CPU of orchestration is that of all processes, while orders are placed and until all are confirmed in the
read model, less that of the direct run at the same load. The callers are not counted.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.comparison import Results, Sample, repeat
from bench.fulfilments import Fulfilments
from bench.hosted_stack import ROOT, RunningSystem, run_stack
from bench.load_generator import LoadGenerator
from bench.plan import Plan
from devstack.child import Child

RATE = 10
"""Orders a second at the low rate."""
QUEUED, PACED, LONE = "order of a queue", f"order at {RATE}/s", "a lone PlaceOrder"
MANAGED, DIRECT, BY_HAND = "by the process manager", "by direct commands", "by hand"


def subtract_cpu(sample: Sample, direct: Sample) -> Sample:
    """Return a sample with the CPU time that it took beyond the direct run, by process."""
    return replace(sample, cpu={name: cost - direct.cpu.get(name, 0.0) for name, cost in sample.cpu.items()})


@asynccontextmanager
async def open_fulfilments(
    generator: LoadGenerator, variables: Mapping[str, str], root: Path = ROOT, orchestrator: str = DIRECT
) -> AsyncIterator[Fulfilments]:
    """Yield orders on a stack of their own; at the end its verifier must be clean.

    Args:
        generator: places the orders.
        variables: of all processes.
        root: the checkout whose code is measured.
        orchestrator: MANAGED, DIRECT or BY_HAND.

    Raises:
        InvalidRun: the stack does not start, the warm-up fails, or the verifier has findings.
    """
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory(prefix="diptych-bench-")))
        managers = 1 if orchestrator == MANAGED else 0
        stack = await exits.enter_async_context(
            run_stack(root, process_managers=managers, variables=variables)
        )
        pids = {}
        if orchestrator == BY_HAND:
            child = _create_orchestrator(stack.system, folder)
            await child.start()
            exits.push_async_callback(child.stop)
            pids = {"orchestrator": child.process.pid}
        run = Fulfilments(stack.system, generator, folder, pids)
        exits.push_async_callback(run.close)
        await run.prepare(direct=orchestrator == DIRECT)
        yield run
        await stack.check_consistency()


def _create_orchestrator(system: RunningSystem, folder: Path) -> Child:
    addresses = (system.command_address, system.database_url, system.nats_url)
    command = [sys.executable, "-m", "bench.orchestrator", *addresses]
    environment = {**os.environ, "BENCH_TOKEN": system.token}
    return Child("orchestrator", command, folder / "orchestrator.log", environment=environment)


async def measure(plan: Plan, generator: LoadGenerator, variables: Mapping[str, str]) -> Results:
    """Return the samples of all rounds."""
    return await repeat(partial(measure_round, plan, generator, variables), plan.rounds)


async def measure_round(
    plan: Plan,
    generator: LoadGenerator,
    variables: Mapping[str, str],
    root: Path = ROOT,
    orchestrators: Sequence[str] = (MANAGED, BY_HAND),
) -> dict[str, Sample]:
    """Run a round: direct commands, then each orchestrator; return the samples by the subjects' names.

    Raises:
        InvalidRun: a run proves nothing.
    """
    paced = int(RATE * plan.paced_seconds)
    async with open_fulfilments(generator, variables, root) as run:
        samples = {LONE: await run.measure_lone_calls()}
        queued = samples[f"{QUEUED}, {DIRECT}"] = await run.run(plan.queued_orders, direct=True)
        spread = samples[f"{PACED}, {DIRECT}"] = await run.run(paced, RATE, direct=True)
    for orchestrator in orchestrators:
        async with open_fulfilments(generator, variables, root, orchestrator) as run:
            samples[f"{QUEUED}, {orchestrator}"] = subtract_cpu(await run.run(plan.queued_orders), queued)
            samples[f"{PACED}, {orchestrator}"] = subtract_cpu(await run.run(paced, RATE), spread)
    return samples
