"""PlaceOrder and GetOrder at a stack of any version, on either gRPC server, for `bench.against`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench import requests
from bench.comparison import InvalidRun, Sample
from bench.environment import H2CORN, IN_FLIGHT, wait_for_orders
from bench.hosted_stack import RunningSystem, run_stack
from bench.load_generator import LoadGenerator, write_requests
from bench.plan import Plan
from bench.process_cost import CpuMeter
from bench.services import CALLS, GET, PLACE, name_on_h2corn
from operations.processes import COMMAND_SERVER, QUERY_SERVER

SERVERS: Mapping[str, Mapping[str, str]] = {"{}": {}, name_on_h2corn("{}"): H2CORN}
"""The variables of each gRPC server, by the form of a subject's name."""
NAMES = [server.format(name) for server in SERVERS for name in ("PlaceOrder", "GetOrder")]


async def measure_round(
    plan: Plan, generator: LoadGenerator, folder: Path, variables: Mapping[str, str], root: Path
) -> dict[str, Sample]:
    """Return a sample of each subject. Their CPU is that of the called server, with the exporter of its log.

    Raises:
        InvalidRun: a call failed, or the read model does not catch up.
    """
    samples: dict[str, Sample] = {}
    for name, server in SERVERS.items():
        async with run_stack(root, variables={**variables, **server}) as stack:
            measured = await _measure_stack(stack.system, plan.scale(CALLS), generator, folder)
            samples |= {name.format(method): sample for method, sample in measured.items()}
    return samples


async def _measure_stack(
    system: RunningSystem, calls: int, generator: LoadGenerator, folder: Path
) -> dict[str, Sample]:
    orders, reads = folder / "requests-orders", folder / "requests-reads"
    send = partial(_send, generator, system.token, calls)
    place = partial(send, system.command_address, PLACE, orders, system.processes[COMMAND_SERVER.name])
    get = partial(send, system.query_address, GET, reads, system.processes[QUERY_SERVER.name])
    write_requests(orders, requests.generate_orders(calls, "o-"))
    await place()  # warms the server up; these orders are read
    write_requests(reads, requests.generate_reads("o-", calls, 0, calls))
    write_requests(orders, requests.generate_orders(calls))
    await wait_for_orders(system.redis_url, calls)
    placed = await place()
    await wait_for_orders(system.redis_url, 2 * calls)
    await get()
    return {"PlaceOrder": placed, "GetOrder": await get()}


async def _send(
    generator: LoadGenerator, token: str, calls: int, address: str, method: str, file: Path, process: int
) -> Sample:
    meter = CpuMeter({"server": process})
    result = await generator.run(address, method, file, token=token, count=calls, in_flight=IN_FLIGHT)
    if result.ok != calls:
        raise InvalidRun(f"{method} returned {dict(result.statuses)}, of {calls} calls")
    return Sample(result.rate, result.latency, meter.measure(calls))
