"""`make bench`: rates, latencies and CPU time as ratios to ceilings, in one run.

A group that fails is reported at the end, beside the table of all others, and makes the exit code 1.
"""

import argparse
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import uvloop

from bench import (
    client,
    feed,
    idle,
    isolation,
    lag,
    maintenance,
    memory,
    mix,
    overload,
    plots,
    report,
    sagas,
    store,
    tls,
)
from bench.comparison import InvalidRun, Results, Subject, interleave
from bench.environment import Environment
from bench.failures import Failures
from bench.load_generator import LoadGenerator
from bench.plan import COMPLETE, QUICK, Plan
from bench.services import Services
from bench.table import TABLE
from bench.telemetry import run_collector
from devstack.stack_kinds import temporary_stack
from runtime.process import logs
from runtime.process.start_error import StartError

Open = Callable[[Environment], AbstractAsyncContextManager[list[Subject]]]

GROUPS: Mapping[str, Open] = {
    "feed": feed.open_subjects,
    "client": client.open_subjects,
    "services": lambda environment: Services(environment).open_subjects(),
    "tls": tls.open_subjects,
    "levels": lambda environment: Services(environment).open_levels(),
    "variants": lambda environment: Services(environment).open_variants(),
    "store": store.open_subjects,
    "lag": lag.open_subjects,
    "mix": mix.open_subjects,
    "isolation": isolation.open_subjects,
    "overload": overload.open_subjects,
    "memory": memory.open_subjects,
    "maintenance": maintenance.open_subjects,
}
"""The groups that share one stack. "feed" is the first, since it needs orders that are not projected yet."""
OWN_STACK_GROUPS = ("idle", "sagas")
NO_WARM_UP = {"feed", "overload"}
"""They have none, or one of their own."""
NO_ROUNDS = {"levels", "memory"}
"""Measured once: levels are for the plots alone, and memory does not vary."""


async def measure_shared(
    environment: Environment, chosen: Collection[str], failures: Failures, results: Results
) -> None:
    """Add the samples of the groups that share a stack to the results."""
    plan = environment.plan
    await environment.stop_workers()
    await environment.place_orders(plan.backlog)
    for name in filter(chosen.__contains__, GROUPS):
        if name != "feed" and environment.placed_orders < plan.orders:
            await environment.grow(plan.orders)
        measured = await failures.collect(name, partial(_measure_group, environment, name, failures))
        results |= measured
        if not measured:
            await environment.recover()


async def _measure_group(environment: Environment, name: str, failures: Failures) -> Results:
    """Return the samples of a group; a subject that fails has none."""

    async def keep_failure(subject: str, error: Exception) -> None:
        failures.add(f"{name}, {subject}", error)
        await environment.reset_expected_events()

    rounds, warm_up = environment.plan.rounds, 1
    if name == "client":
        rounds = environment.plan.client_rounds
    elif name in NO_ROUNDS:
        rounds, warm_up = 1, 0
    elif name in NO_WARM_UP:
        warm_up = 0
    async with GROUPS[name](environment) as subjects:
        results = await interleave(subjects, rounds, warm_up, keep_failure)
    await environment.check_recorded_events()
    return results


async def measure(plan: Plan, chosen: Collection[str], failures: Failures) -> Results:
    """Return the samples of every subject of the chosen groups."""
    results = Results()
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        generator = await LoadGenerator.build(folder)
        async with run_collector(folder) as variables:
            if set(chosen) & set(GROUPS):
                try:
                    async with _open_environment(folder, generator, variables, plan) as environment:
                        await measure_shared(environment, chosen, failures, results)
                except Exception as error:  # the groups with stacks of their own are measured all the same
                    failures.add("the shared stack", error)
            own_stacks = {
                "idle": partial(idle.measure, plan.rounds, plan.idle_seconds, variables),
                "sagas": partial(sagas.measure, plan, generator, variables),
            }
            for group in filter(chosen.__contains__, OWN_STACK_GROUPS):
                results |= await failures.collect(group, own_stacks[group])
    return results


@asynccontextmanager
async def _open_environment(
    folder: Path, generator: LoadGenerator, variables: Mapping[str, str], plan: Plan
) -> AsyncIterator[Environment]:
    environment = {**variables, "DIPTYCH_GRPC_SERVER": "grpc.aio"}  # rows of h2corn have servers of their own
    async with temporary_stack(folder / "stack", durable=True, environment=environment) as stack:
        yield Environment(stack, generator, folder, plan)


async def main(plan: Plan, chosen: Collection[str]) -> Failures:
    """Measure, print the tables and save the results; return what failed.

    Raises:
        InvalidRun, StartError, RuntimeError: there are no results.
    """
    failures, start = Failures(), monotonic()
    results = await measure(plan, chosen, failures)
    report.print_tables(TABLE, results)
    if plan.is_quick:
        print("A quick bench: single short rounds. Take figures from `make bench`.")
    print(f"{monotonic() - start:.0f} s")
    paths = (report.save(plan.name, TABLE, results, failures), *plots.draw(plan.name, results))
    for path in paths:
        print(path.relative_to(Path.cwd()))
    return failures


def parse_arguments() -> tuple[Plan, Collection[str]]:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="the same rows with fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="rounds of every group but client")
    known = (*GROUPS, *OWN_STACK_GROUPS)
    parser.add_argument("groups", nargs="*", default=known, metavar="group", help=f"of {', '.join(known)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(known):
        parser.error(f"unknown group: {', '.join(sorted(unknown))}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds: must be 1 or more")
    plan = QUICK if arguments.quick else COMPLETE
    return replace(plan, rounds=arguments.rounds or plan.rounds), arguments.groups


if __name__ == "__main__":
    plan, chosen = parse_arguments()
    logs.configure("warning", "console")
    try:
        failures = uvloop.run(main(plan, chosen))
    except (InvalidRun, StartError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
    if failures:
        sys.exit("".join(f"\nbench: FAILED {failure}" for failure in failures))
