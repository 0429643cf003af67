"""`make bench-against REV=...`: this version against an older one, in turns on the same machine.

Run as `python -m bench.against REV [group ...]`. The other version is checked out and set up with its own
dependencies. Stacks of both are measured in turns by this version's programs, round after round, and each
round begins with the other one.
"""

import argparse
import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from bench import calls, idle, lag, report, sagas
from bench.comparison import Comparison, InvalidRun, Results, Sample, repeat, select_cpu
from bench.hosted_stack import ROOT, run_stack
from bench.load_generator import LoadGenerator
from bench.plan import COMPLETE, QUICK, Plan
from bench.table import MANAGED_PACED, MANAGED_QUEUE, P50, P99
from bench.telemetry import run_collector
from runtime.process import logs

THIS = "this version"
Samples = Mapping[str, Sample]
Order = Sequence[tuple[str, Path]]
"""The versions' names and checkouts, in the order in which a round measures them."""


class Versions:
    """Measures one group of one version in one round.

    Args:
        generator: sends the load to both versions.
        folder: for requests files.
        plan: how much is measured.
        variables: of all processes.
    """

    def __init__(
        self, generator: LoadGenerator, folder: Path, plan: Plan, variables: Mapping[str, str]
    ) -> None:
        self._generator, self._folder, self._plan, self._variables = generator, folder, plan, variables
        self.groups: Mapping[str, Callable[[Path], Awaitable[Samples]]] = {
            "sagas": self._measure_sagas,
            "lag": self._measure_lag,
            "idle": self._measure_idle,
            "calls": self._measure_calls,
        }

    async def _measure_sagas(self, root: Path) -> Samples:
        return await sagas.measure_round(self._plan, self._generator, self._variables, root, [sagas.MANAGED])

    async def _measure_lag(self, root: Path) -> Samples:
        samples: dict[str, Sample] = {}
        async with run_stack(root, variables=self._variables) as stack:
            measure = partial(lag.measure_system, stack.system, self._generator, self._folder)
            await measure(lag.RATES[0], lag.RATES[0])  # warms everything up
            for rate in lag.RATES:
                samples[lag.name_system(rate)] = await measure(rate, int(rate * self._plan.seconds))
            await stack.check_consistency()
        return samples

    async def _measure_idle(self, root: Path) -> Samples:
        results = await idle.measure(1, self._plan.idle_seconds, self._variables, root)
        return {name: sample for name, (sample,) in results.items()}

    async def _measure_calls(self, root: Path) -> Samples:
        return await calls.measure_round(self._plan, self._generator, self._folder, self._variables, root)

    async def measure_round(self, group: str, orders: Iterator[Order]) -> Samples:
        """Measure in the next order, and return the samples by the subject's and the version's name."""
        samples: dict[str, Sample] = {}
        for version, root in next(orders):
            measured = await self.groups[group](root)
            samples |= {name_version(name, version): sample for name, sample in measured.items()}
        return samples


def alternate(roots: Mapping[str, Path]) -> Iterator[Order]:
    """Yield the order of each round. The first one changes, since the machine's speed drifts."""
    forwards = list(roots.items())
    return cycle((forwards, forwards[::-1]))


def name_version(subject: str, version: str) -> str:
    return f"{subject}, {version}"


def create_table(revision: str) -> list[Comparison]:
    """Return the lines that compare this version with another one."""
    lines = [
        Comparison(MANAGED_QUEUE, MANAGED_QUEUE, 1 / 8, 1 / 12, select_cpu, "CPU", at_most=True),
        Comparison(MANAGED_QUEUE, MANAGED_QUEUE, 4, 6),
        Comparison(MANAGED_PACED, MANAGED_PACED, 1 / 4, 1 / 6, select_cpu, "CPU", at_most=True),
        *(
            Comparison(name, name, metric=metric, metric_name=metric_name, at_most=True)
            for name in (MANAGED_PACED, *map(lag.name_system, lag.RATES))
            for metric, metric_name in ((P50, "p50"), (P99, "p99"))
        ),
        *(
            Comparison(name, name, metric=select_cpu, metric_name="CPU", at_most=True)
            for name in (*map(lag.name_system, lag.RATES), idle.IDLE, *calls.NAMES)
        ),
    ]
    return [
        replace(line, name=name_version(line.name, THIS), against=name_version(line.against, revision))
        for line in lines
    ]


@asynccontextmanager
async def check_out(revision: str) -> AsyncIterator[Path]:
    """Yield a checkout of a revision that is set up; it is removed at the end.

    Raises:
        RuntimeError: there is no such revision, or its set-up fails.
    """
    with TemporaryDirectory(prefix="diptych-against-") as folder:
        root = Path(folder) / "checkout"
        await _run("git", "worktree", "add", "--quiet", "--detach", str(root), revision, cwd=ROOT)
        try:
            await _run("make", "--silent", "setup", cwd=root)
            yield root
        finally:
            await _run("git", "worktree", "remove", "--force", str(root), cwd=ROOT)


async def _run(*command: str, cwd: Path) -> None:
    # A make that runs this program must not pass its own flags on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=PIPE, stderr=STDOUT
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])}: {out.decode().strip()}")


async def main(revision: str, groups: Collection[str], plan: Plan, rounds: int) -> None:
    """Measure, print the table and save the results.

    Raises:
        InvalidRun, RuntimeError: there are no results.
    """
    results: Results = {}
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        generator = await LoadGenerator.build(folder)
        async with check_out(revision) as root, run_collector(folder) as variables:
            versions = Versions(generator, folder, plan, variables)
            roots = {revision: root, THIS: ROOT}
            for group in groups:
                print(group, flush=True)
                results |= await repeat(partial(versions.measure_round, group, alternate(roots)), rounds)
    table = create_table(revision)
    report.print_tables(table, results)
    print(report.save("against", table, results).relative_to(Path.cwd()))


if __name__ == "__main__":
    known = ("sagas", "lag", "idle", "calls")
    parser = argparse.ArgumentParser(prog="python -m bench.against")
    parser.add_argument("revision", help="a commit, branch or tag of this repository")
    parser.add_argument("groups", nargs="*", default=["sagas"], help=f"of {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=COMPLETE.rounds)
    parser.add_argument("--quick", action="store_true", help="shorter rounds")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(known):
        parser.error(f"unknown group: {', '.join(sorted(unknown))}")
    if arguments.rounds < 1:
        parser.error("--rounds: must be 1 or more")
    logs.configure("warning", "console")
    plan = QUICK if arguments.quick else COMPLETE
    try:
        uvloop.run(main(arguments.revision, arguments.groups, plan, arguments.rounds))
    except (InvalidRun, RuntimeError) as error:
        sys.exit(f"bench: {error}")
