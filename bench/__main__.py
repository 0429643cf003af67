"""`make bench`: rates and latencies as ratios to ceilings, in one run of six to eleven minutes."""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import uvloop

from bench import client, feed, lag, overload, plots, report, store
from bench.comparison import Comparison, InvalidRun, Results, interleave, select_percentile
from bench.environment import ORDERS, Environment, run_echo
from bench.load_generator import LoadGenerator
from bench.services import BATCH_SIZE, Services
from devstack.stack_kinds import temporary_stack
from runtime.process import logs
from runtime.process.start_error import StartError

ROUNDS = 3
ROUNDS_BY_GROUP = {"feed": (1, 0), "client": (10, 1), "levels": (1, 0), "overload": (1, 0)}
"""Rounds, and warm-up rounds before them, of the groups that ignore `--rounds`."""
GROUPS = ("feed", "client", "services", "levels", "variants", "store", "lag", "overload")
TABLE = (
    Comparison("GetOrder", "echo of GetOrder", 0.80, 1.0),
    Comparison("PlaceOrder", "echo of PlaceOrder", 0.55, 0.80),
    Comparison("ReserveStock", "PlaceOrder", 0.7, 1.0),
    Comparison("BatchGetOrders", "echo of GetOrder", 8, 20, factor=BATCH_SIZE),
    Comparison("ListOrders", "GetOrder", 0.4, 0.7),
    Comparison("the store alone", "a commit a command", 3, 4),
    Comparison("PlaceOrder", "eventsourcing", 5, 7),
    Comparison("relay", "bare publish", 0.6, 0.9),
    Comparison("projector", "fetch and ack", 0.5, 1.0),
    Comparison(
        "commit to visible", "publish, fetch, HSET", 3, 1.5, select_percentile("50"), "p50", at_most=True
    ),
    Comparison(
        "commit to visible", "publish, fetch, HSET", 5, 2, select_percentile("99"), "p99", at_most=True
    ),
    *(
        Comparison(f"{name} with all", f"{name} without {part}", 0.90, 0.97)
        for name in ("GetOrder", "PlaceOrder")
        for part in ("telemetry", "validation", "JWT")
    ),
    *(
        Comparison(f"{name}{when}", f"{name}, peak", 0.80, 1.0)
        for name in ("GetOrder", "PlaceOrder")
        for when in (" at 3 times that", ", 10 s later")
    ),
    *(Comparison(f"{name} with 2 workers", f"{name} with all") for name in ("GetOrder", "PlaceOrder")),
    *(
        Comparison(
            client.name_client(method, kind),
            client.name_stub(method, kind),
            1.10,
            1.05,
            select_percentile("50"),
            "p50",
            at_most=True,
        )
        for method in client.METHODS
        for kind in client.KINDS
    ),
)
COLLECTOR_METHODS = (
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)


async def measure(environment: Environment, rounds: int, chosen_groups: Collection[str]) -> Results:
    """Return the samples of every subject of the chosen groups.

    Raises:
        InvalidRun: a call failed, or responses and recorded events differ in number.
    """
    start = monotonic()
    await environment.stop_workers()
    await environment.place_orders(ORDERS)
    print(f"{ORDERS:,} orders placed in {monotonic() - start:.0f} s", flush=True)
    groups = {
        "feed": lambda: feed.open_subjects(environment),
        "client": lambda: client.open_subjects(environment),
        "services": lambda: Services(environment).open_subjects(),
        "levels": lambda: Services(environment).open_levels(),
        "variants": lambda: Services(environment).open_variants(),
        "store": lambda: store.open_subjects(environment),
        "lag": lambda: lag.open_subjects(environment),
        "overload": lambda: overload.open_subjects(environment),
    }
    results: Results = {}
    if "feed" not in chosen_groups:
        await feed.catch_up(environment)
    for name in filter(chosen_groups.__contains__, groups):  # "feed" needs orders that are not projected yet
        print(name, flush=True)
        async with groups[name]() as subjects:
            results |= await interleave(subjects, *ROUNDS_BY_GROUP.get(name, (rounds, 1)))
        await environment.check_recorded_events()
    return results


async def main(rounds: int, chosen_groups: Collection[str]) -> None:
    """Measure, print the tables and save the results.

    Raises:
        InvalidRun, StartError, RuntimeError: there are no results.
    """
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        generator = await LoadGenerator.build(folder)
        async with run_echo(folder, dict.fromkeys(COLLECTOR_METHODS, b"")) as (collector, _):
            telemetry = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.1",
            }
            async with temporary_stack(folder / "stack", durable=True, environment=telemetry) as stack:
                results = await measure(Environment(stack, generator, folder), rounds, chosen_groups)
    report.print_tables(TABLE, results)
    for path in (report.save("bench", TABLE, results), *plots.draw("bench", results)):
        print(path.relative_to(Path.cwd()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("groups", nargs="*", default=GROUPS, metavar="group", help=f"of {', '.join(GROUPS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"unknown group: {', '.join(sorted(unknown))}")
    logs.configure("warning", "console")
    try:
        uvloop.run(main(arguments.rounds, arguments.groups))
    except (InvalidRun, StartError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
