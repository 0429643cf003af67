"""`make bench`: what the system does beside what is possible, in one run of about five minutes."""

import argparse
import asyncio
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import uvloop

from bench import report
from bench.contest import Comparison, Results, Void, interleave
from bench.load import Player
from bench.scene import ORDERS, Scene, running_echo
from bench.served import BATCH_SIZE, Served
from operations.stacks import throwaway
from runtime.errors import StartError

ROUNDS = 5
TABLE = (
    Comparison("GetOrder", "echo of GetOrder", 0.80, 1.0),
    Comparison("PlaceOrder", "echo of PlaceOrder", 0.55, 0.80),
    Comparison("ReserveStock", "PlaceOrder", 0.7, 1.0),
    Comparison("BatchGetOrders", "echo of GetOrder", 8, 20, factor=BATCH_SIZE),
    Comparison("ListOrders", "GetOrder", 0.4, 0.7),
)
COLLECTORS = (
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)


async def main(rounds: int) -> None:
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
            async with throwaway(folder / "stack", durable=True, environment=environment) as stack:
                scene = Scene(stack, player, folder)
                start = monotonic()
                await scene.fill(ORDERS)
                print(f"{ORDERS:,} orders placed in {monotonic() - start:.0f} s", flush=True)
                await scene.shown(ORDERS)
                print(f"and shown after {monotonic() - start:.0f} s", flush=True)
                await scene.rest()
                async with Served(scene).contestants() as contestants:
                    results = await interleave(contestants, rounds)
                await scene.check()
    report.show(TABLE, results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    try:
        uvloop.run(main(arguments.rounds))
    except (Void, StartError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
