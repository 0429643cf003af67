"""`make bench`: what the system does beside what is possible, in one run of about eleven minutes."""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import uvloop

from bench import feed, lag, overload, plots, report, store
from bench.comparison import Comparison, Results, Void, interleave, percentile
from bench.environment import ORDERS, Scene, running_echo
from bench.load_generator import Player
from bench.services import BATCH_SIZE, Served
from devstack.stacks import temporary_stack
from runtime.process import logs
from runtime.process.start_error import StartError

ROUNDS = 3
ROUNDS_OF = {"feed": (1, 0), "levels": (1, 0), "overload": (1, 0)}
"""Rounds, and how many before them do not count, where they are not as asked."""
GROUPS = ("feed", "served", "levels", "variants", "store", "lag", "overload")
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
    Comparison("commit to visible", "publish, fetch, HSET", 3, 1.5, percentile("50"), "p50", at_most=True),
    Comparison("commit to visible", "publish, fetch, HSET", 5, 2, percentile("99"), "p99", at_most=True),
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
)
COLLECTORS = (
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)


async def measure(scene: Scene, rounds: int, chosen: Collection[str]) -> Results:
    """Return the samples of every contestant of the chosen groups.

    Raises:
        Void: they prove nothing.
    """
    start = monotonic()
    await scene.rest()
    await scene.fill(ORDERS)
    print(f"{ORDERS:,} orders placed in {monotonic() - start:.0f} s", flush=True)
    groups = {
        "feed": lambda: feed.contestants(scene),
        "served": lambda: Served(scene).contestants(),
        "levels": lambda: Served(scene).levels(),
        "variants": lambda: Served(scene).variants(),
        "store": lambda: store.contestants(scene),
        "lag": lambda: lag.contestants(scene),
        "overload": lambda: overload.contestants(scene),
    }
    results: Results = {}
    if "feed" not in chosen:
        await feed.catch_up(scene)
    for name in chosen:
        print(name, flush=True)
        async with groups[name]() as contestants:
            results |= await interleave(contestants, *ROUNDS_OF.get(name, (rounds, 1)))
        await scene.check()
    return results


async def main(rounds: int, chosen: Collection[str]) -> None:
    """Measure, print the table and keep the result.

    Raises:
        Void, StartError, RuntimeError: there is no result.
    """
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        player = await Player.build(folder)
        async with running_echo(folder, dict.fromkeys(COLLECTORS, b"")) as (collector, _):
            environment = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.1",
            }
            async with temporary_stack(folder / "stack", durable=True, environment=environment) as stack:
                results = await measure(Scene(stack, player, folder), rounds, chosen)
    report.show(TABLE, results)
    for path in (report.keep("bench", TABLE, results), *plots.draw("bench", results)):
        print(path.relative_to(Path.cwd()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("groups", nargs="*", default=GROUPS)
    arguments = parser.parse_args()
    logs.configure("warning", "console")
    try:
        uvloop.run(main(arguments.rounds, arguments.groups))
    except (Void, StartError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
