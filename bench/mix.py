"""Ten queries to a command, as fast as they are answered, while relay and projector work.

Each of the calls in flight is followed by the next one when it is answered; every eleventh is a PlaceOrder,
the others are GetOrder. All processes share all cores.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count

from bench import requests
from bench.comparison import InvalidRun, Sample, Subject
from bench.environment import IN_FLIGHT, Environment
from bench.load_generator import CONNECTIONS, Mixed
from bench.process_cost import CpuMeter
from bench.services import GET, PLACE, run_call_echo
from operations.processes import COMMAND_SERVER, QUERY_SERVER

MIX, ECHO = "10 queries to a command", "echo of 10 queries to a command"
QUERIES = 10
"""Queries to a command."""


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield the mix on the system and on an echo of both methods."""
    query, command = (environment.stack.of(kind)[0].address for kind in (QUERY_SERVER, COMMAND_SERVER))
    runs = count()

    async def measure_system() -> Sample:
        sample, commands = await measure(
            environment, query, command, environment.describe_system().processes, next(runs)
        )
        environment.expected_events += commands
        await environment.check_recorded_events()
        await environment.wait_for_read_model()
        return sample

    await environment.start_workers()
    async with run_call_echo(environment) as (echo, process):

        async def measure_echo() -> Sample:
            return (await measure(environment, echo, echo, process, next(runs)))[0]

        yield [Subject(ECHO, measure_echo), Subject(MIX, measure_system)]
    await environment.stop_workers()


async def measure(
    environment: Environment, query: str, command: str, processes: Mapping[str, int], run: int
) -> tuple[Sample, int]:
    """Return the sample of all calls, and the number of commands.

    Raises:
        InvalidRun: a call failed.
    """
    seconds = environment.plan.seconds
    reads = requests.generate_reads("o-", environment.placed_orders, run * requests.READS, requests.READS)
    orders = requests.generate_orders(requests.COMMANDS)
    orders_file = environment.write_requests("requests-mix-PlaceOrder", orders)
    meter = CpuMeter(processes)
    result = await environment.generator.run(
        *(query, GET, environment.write_requests("requests-mix-GetOrder", reads)),
        token=environment.token,
        seconds=seconds,
        in_flight=IN_FLIGHT,
        mixed=Mixed(command, PLACE, orders_file, every=QUERIES + 1),
    )
    if result.mixed is None or not is_mixed(result.ok, result.mixed.ok):
        raise InvalidRun(f"{result.ok} calls are no mix of {QUERIES} queries to a command")
    if result.ok != sum(result.statuses.values()):
        raise InvalidRun(f"the mix returned {dict(result.statuses)}")
    return Sample(result.rate, result.latency, meter.measure(result.ok)), result.mixed.ok


def is_mixed(calls: int, commands: int) -> bool:
    """Return whether every eleventh of these calls was a command, on each of the generator's connections."""
    return abs(calls - commands * (QUERIES + 1)) <= QUERIES * CONNECTIONS
