"""`make load SCENARIO=mixed`: runs ghz on the local stack and samples the lag of the read model meanwhile.

A scenario is one file in `bench/ghz`, or several that run at once (`mixed.command.json`, `mixed.query.json`).
All are open loops: they send at their rate, independent of responses.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import monotonic, time
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import grpc
from diptych.ordering.v1 import command_service_pb2, query_service_pb2
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.types_pb2 import Order
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from redis.asyncio import Redis

from bench import requests
from bench.report import RESULTS
from contracts.streams import aggregate_id
from contracts.view_layout import View
from devstack import tokens
from devstack.child import Child
from operations.processes import check_health
from runtime.process.lifecycle import read_settings
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

SCENARIOS = Path(__file__).with_name("ghz")
INSTALL_HINT = "make: load needs ghz: `make tools` installs it with Go 1.23 or later"
DESCRIPTORS = Path(".cache", "ordering.protoset")
"""The descriptors of the messages, for ghz."""
READ_ORDERS = 1_000
"""The number of orders `load-0`, `load-1`, ... that queries read."""
REQUEST_IDS = UUID("0f5c8f6e-4b0e-5d0f-9d0d-0a6a3a3d9a55")
START_TIMEOUT = 60.0
"""Seconds within which the local stack has to serve."""
PROBE_INTERVAL = 0.25
"""Seconds between two reads of the newest order."""
ORDERS = View.of(Order)
SELECT_NEWEST = """
SELECT stream, version, extract(epoch FROM recorded_at)::float8 FROM events
WHERE stream LIKE 'ordering.order.%' ORDER BY position DESC LIMIT 1
"""


class LagProbe:
    """Samples the time from an order's event to its effect in the read model."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.milliseconds: list[float] = []

    async def run(self) -> None:
        """Take samples until cancelled."""
        connection = await asyncpg.connect(self._settings.database_url)
        previous = await connection.fetchrow(SELECT_NEWEST)  # from before this run
        try:
            async with Redis.from_url(self._settings.redis_url) as redis:
                while True:
                    row = await connection.fetchrow(SELECT_NEWEST)
                    if row is not None and row != previous:
                        previous = row
                        self.milliseconds.append(1000 * await self._wait_until_visible(redis, *row))
                    await asyncio.sleep(PROBE_INTERVAL)
        finally:
            await connection.close()

    @staticmethod
    async def _wait_until_visible(redis: Redis, stream: str, version: int, recorded_at: float) -> float:
        """Wait until an order's view includes a version; return the seconds since it was recorded."""
        key = ORDERS.key(aggregate_id(stream))
        while int(await redis.hget(key, "version") or 0) < version:
            await asyncio.sleep(0.001)
        return time() - recorded_at

    def __str__(self) -> str:
        samples = sorted(self.milliseconds)
        if not samples:
            return "no order was placed"
        return f"median {median(samples):.0f} ms, maximum {samples[-1]:.0f} ms, of {len(samples)} samples"


async def main(scenario: str, ghz: str) -> None:
    """Run a scenario on the local stack; start the stack if it does not run.

    Raises:
        StartError: there is no such scenario, or the stack does not start.
        RuntimeError: ghz failed.
    """
    files = sorted([*SCENARIOS.glob(f"{scenario}.json"), *SCENARIOS.glob(f"{scenario}.*.json")])
    if not files:
        names = sorted({file.name.partition(".")[0] for file in SCENARIOS.glob("*.json")})
        raise StartError(f"there is no scenario {scenario}: there are {', '.join(names)}")
    write_descriptors(DESCRIPTORS, [command_service_pb2, query_service_pb2])
    settings = read_local_settings()
    targets = {file: select_address(file, settings) for file in files}
    async with run_stack(settings):
        token = tokens.mint(settings, ["ordering.read", "ordering.write"], "load", timedelta(hours=1))
        await place_read_orders(settings, token)
        lag = LagProbe(settings)
        sampling = asyncio.create_task(lag.run())
        try:
            reports = await asyncio.gather(
                *(_run_ghz(ghz, file, address, token) for file, address in targets.items())
            )
        finally:
            sampling.cancel()
    for file, report in zip(files, reports, strict=True):
        print(summarise(file.stem, report))
    print(f"lag of the read model: {lag}")
    print(f"saved as {save(scenario, [file.stem for file in files], reports, str(lag))}")


def read_local_settings() -> Settings:
    """Return the settings of the environment, with the local stack's key set by default."""
    settings = read_settings()
    if "jwks" not in settings.model_fields_set:
        return settings.model_copy(update={"jwks": str(Path(".diptych", "jwks.json").absolute())})
    return settings


def write_descriptors(path: Path, modules: Sequence[Any]) -> None:
    """Write the descriptors of generated modules and of their imports, dependencies first."""
    descriptors: dict[str, FileDescriptorProto] = {}

    def add(file: Any) -> None:
        if file.name not in descriptors:
            for dependency in file.dependencies:
                add(dependency)
            descriptors[file.name] = FileDescriptorProto.FromString(file.serialized_pb)

    for module in modules:
        add(module.DESCRIPTOR)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(FileDescriptorSet(file=descriptors.values()).SerializeToString())


def select_address(file: Path, settings: Settings) -> str:
    """Return the address that serves the method of a scenario file."""
    calls_commands = "CommandService" in json.loads(file.read_text())["call"]
    return settings.command_address if calls_commands else settings.query_address


@asynccontextmanager
async def run_stack(settings: Settings) -> AsyncIterator[None]:
    """Use the local stack that runs already, or run one within the context."""
    if await check_health(settings.command_address) == "SERVING":
        yield
        return
    print("starting the local stack", flush=True)
    log = Path(".diptych", "load.log")
    log.parent.mkdir(exist_ok=True)
    child = Child("stack", [Path(sys.executable).with_name("devstack"), "up"], log)
    await child.start()
    try:
        deadline = monotonic() + START_TIMEOUT
        addresses = (settings.command_address, settings.query_address)
        while {await check_health(address) for address in addresses} != {"SERVING"}:
            if not child.running or monotonic() > deadline:
                raise StartError(f"the local stack does not start; see {log}")
            await asyncio.sleep(0.2)
        yield
    finally:
        await child.stop()


async def place_read_orders(settings: Settings, token: str) -> None:
    """Place the orders that queries read; derived request ids make a repetition change nothing."""
    bearer = (("authorization", f"Bearer {token}"),)
    orders = iter(requests.generate_orders(READ_ORDERS, "load-"))
    async with grpc.aio.insecure_channel(settings.command_address) as channel:
        stub = CommandServiceStub(channel)

        async def place() -> None:
            for order in orders:
                order.request_id = str(uuid5(REQUEST_IDS, order.order_id))
                await stub.PlaceOrder(order, metadata=bearer)

        await asyncio.gather(*(place() for _ in range(32)))


async def _run_ghz(program: str, file: Path, address: str, token: str) -> dict:  # type: ignore[type-arg]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config={file}",
        f"--protoset={DESCRIPTORS}",
        f"--metadata={json.dumps({'authorization': f'Bearer {token}'})}",
        "--format=json",
        address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"ghz: {error.decode() or out.decode()}")
    return dict(json.loads(out))


def summarise(name: str, report: dict) -> str:  # type: ignore[type-arg]
    """Return one line for a report of ghz."""
    latency = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"] or ()}
    half, most = latency.get(50, 0.0), latency.get(99, 0.0)
    statuses = ", ".join(f"{status} {count:,}" for status, count in report["statusCodeDistribution"].items())
    return f"{name:16}{report['rps']:9,.0f}/s   50 % {half:7.1f} ms   99 % {most:7.1f} ms   {statuses}"


PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2em }} td, th {{ padding: 0.2em 1em; text-align: right }}
.bar {{ background: #37c; height: 1em }} pre {{ font-size: 1.1em }}</style><h1>{title}</h1>{body}"""


def save(scenario: str, names: Sequence[str], reports: Sequence[dict], lag: str) -> Path:  # type: ignore[type-arg]
    """Write reports as JSON and as an HTML page; return the path of the page."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"load-{scenario}-{now:%Y%m%dT%H%M%SZ}.html"
    content = {"at": now.isoformat(), "lag": lag, "runs": dict(zip(names, reports, strict=True))}
    path.with_suffix(".json").write_text(json.dumps(content))
    body = f"<pre>lag of the read model: {lag}</pre>"
    for name, report in zip(names, reports, strict=True):
        histogram = _render_histogram(report["histogram"] or ())
        body += f"<h2>{name}</h2><pre>{summarise(name, report)}</pre>{histogram}"
    path.write_text(PAGE.format(title=f"Load: {scenario}", body=body))
    return path


def _render_histogram(buckets: Sequence[dict]) -> str:  # type: ignore[type-arg]
    highest = max((bucket["count"] for bucket in buckets), default=0) or 1
    rows = (
        f"<tr><td>{1000 * bucket['mark']:.1f} ms<td>{bucket['count']:,}"
        f'<td><div class="bar" style="width: {400 * bucket["count"] / highest:.0f}px"></div>'
        for bucket in buckets
    )
    return f"<table><tr><th>up to<th>calls<th>{''.join(rows)}</table>"


if __name__ == "__main__":
    program = shutil.which("ghz") or shutil.which(Path(sys.executable).with_name("ghz"))
    if program is None:
        sys.exit(INSTALL_HINT)
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "mixed", program))
    except (StartError, RuntimeError) as error:
        sys.exit(f"load: {error}")
