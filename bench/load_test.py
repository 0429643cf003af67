"""`make load SCENARIO=mixed`: ghz on the local stack, as its files in `bench/ghz` say, and the lag meanwhile.

A scenario is one file, or several that run at once (`mixed.command.json`, `mixed.query.json`). All are open
loops: they send at their rate however slow the answers are.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from bench.comparison import middle
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
INSTALL = "make: load needs ghz: `make tools` installs it with Go 1.23 or later"
DESCRIPTORS = Path(".cache", "ordering.protoset")
"""What ghz knows our messages by."""
READ = 1_000
"""The orders `load-0`, `load-1`, ... that queries are for."""
REQUEST_IDS = UUID("0f5c8f6e-4b0e-5d0f-9d0d-0a6a3a3d9a55")
PATIENCE = 60.0
PROBE = 0.25
"""Seconds between two looks at the newest order."""
ORDERS = View.of(Order)
NEWEST = """
SELECT stream, version, extract(epoch FROM recorded_at)::float8 FROM events
WHERE stream LIKE 'ordering.order.%' ORDER BY position DESC LIMIT 1
"""


class Lag:
    """Looks again and again how long the newest order takes to the read model."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.milliseconds: list[float] = []

    async def run(self) -> None:
        """Look until cancelled."""
        connection = await asyncpg.connect(self._settings.database_url)
        last = await connection.fetchrow(NEWEST)  # not of this run
        try:
            async with Redis.from_url(self._settings.redis_url) as redis:
                while True:
                    row = await connection.fetchrow(NEWEST)
                    if row is not None and row != last:
                        last = row
                        self.milliseconds.append(1000 * await self._seen(redis, *row))
                    await asyncio.sleep(PROBE)
        finally:
            await connection.close()

    @staticmethod
    async def _seen(redis: Redis, stream: str, version: int, recorded: float) -> float:
        """Wait until an order's view has come to a version; return the seconds since that was recorded."""
        key = ORDERS.key(aggregate_id(stream))
        while int(await redis.hget(key, "version") or 0) < version:
            await asyncio.sleep(0.001)
        return time() - recorded

    def __str__(self) -> str:
        found = sorted(self.milliseconds)
        if not found:
            return "no order was placed"
        return f"half {middle(found):.0f} ms, most {found[-1]:.0f} ms, of {len(found)} orders looked at"


async def main(scenario: str, ghz: str) -> None:
    """Run a scenario on the local stack, which is started if it is not up.

    Raises:
        StartError: there is no such scenario, or the stack does not start.
        RuntimeError: ghz failed.
    """
    files = sorted([*SCENARIOS.glob(f"{scenario}.json"), *SCENARIOS.glob(f"{scenario}.*.json")])
    if not files:
        known = sorted({file.name.partition(".")[0] for file in SCENARIOS.glob("*.json")})
        raise StartError(f"there is no scenario {scenario}: there are {', '.join(known)}")
    write_descriptors(DESCRIPTORS, [command_service_pb2, query_service_pb2])
    settings = local_settings()
    targets = {file: address_of(file, settings) for file in files}
    async with running(settings):
        token = tokens.mint(settings, ["ordering.read", "ordering.write"], "load", timedelta(hours=1))
        await place_what_is_read(settings, token)
        lag = Lag(settings)
        looking = asyncio.create_task(lag.run())
        try:
            reports = await asyncio.gather(
                *(_ghz(ghz, file, address, token) for file, address in targets.items())
            )
        finally:
            looking.cancel()
    for file, report in zip(files, reports, strict=True):
        print(summary(file.stem, report))
    print(f"read model behind the write model: {lag}")
    print(f"kept in {keep(scenario, [file.stem for file in files], reports, str(lag))}")


def local_settings() -> Settings:
    """Return the settings of the local stack, as the environment changes them."""
    settings = read_settings()
    if "jwks" not in settings.model_fields_set:
        return settings.model_copy(update={"jwks": str(Path(".diptych", "jwks.json").absolute())})
    return settings


def write_descriptors(path: Path, modules: Sequence[Any]) -> None:
    """Write the descriptors of generated modules and of all that they import, in their order."""
    known: dict[str, FileDescriptorProto] = {}

    def add(file: Any) -> None:
        if file.name not in known:
            for dependency in file.dependencies:
                add(dependency)
            known[file.name] = FileDescriptorProto.FromString(file.serialized_pb)

    for module in modules:
        add(module.DESCRIPTOR)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(FileDescriptorSet(file=known.values()).SerializeToString())


def address_of(file: Path, settings: Settings) -> str:
    """Return where the method that a scenario calls is served."""
    commands = "CommandService" in json.loads(file.read_text())["call"]
    return settings.command_address if commands else settings.query_address


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """Use the local stack that is up, or have one for as long as the load lasts."""
    if await check_health(settings.command_address) == "SERVING":
        yield
        return
    print("starting the local stack", flush=True)
    log = Path(".diptych", "load.log")
    log.parent.mkdir(exist_ok=True)
    child = Child("stack", [Path(sys.executable).with_name("devstack"), "up"], log)
    await child.start()
    try:
        deadline = monotonic() + PATIENCE
        while {await check_health(a) for a in (settings.command_address, settings.query_address)} != {
            "SERVING"
        }:
            if not child.running or monotonic() > deadline:
                raise StartError(f"the local stack does not start; {log} tells more")
            await asyncio.sleep(0.2)
        yield
    finally:
        await child.stop()


async def place_what_is_read(settings: Settings, token: str) -> None:
    """Place the orders that queries are for; those that are there already change nothing."""
    bearer = (("authorization", f"Bearer {token}"),)
    orders = iter(requests.orders(READ, "load-"))
    async with grpc.aio.insecure_channel(settings.command_address) as channel:
        stub = CommandServiceStub(channel)

        async def place() -> None:
            for order in orders:
                order.request_id = str(uuid5(REQUEST_IDS, order.order_id))
                await stub.PlaceOrder(order, metadata=bearer)

        await asyncio.gather(*(place() for _ in range(32)))


async def _ghz(program: str, file: Path, address: str, token: str) -> dict:  # type: ignore[type-arg]
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


def summary(name: str, report: dict) -> str:  # type: ignore[type-arg]
    """Return what a run of ghz came to, in a line."""
    latency = {each["percentage"]: each["latency"] / 1e6 for each in report["latencyDistribution"] or ()}
    half, most = latency.get(50, 0.0), latency.get(99, 0.0)
    answers = ", ".join(f"{status} {count:,}" for status, count in report["statusCodeDistribution"].items())
    return f"{name:16}{report['rps']:9,.0f}/s   half {half:7.1f} ms   99 % {most:7.1f} ms   {answers}"


PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2em }} td, th {{ padding: 0.2em 1em; text-align: right }}
.bar {{ background: #37c; height: 1em }} pre {{ font-size: 1.1em }}</style><h1>{title}</h1>{body}"""


def keep(scenario: str, names: Sequence[str], reports: Sequence[dict], lag: str) -> Path:  # type: ignore[type-arg]
    """Write reports as JSON and as a page; return where the page is."""
    RESULTS.mkdir(exist_ok=True)
    at = datetime.now(UTC)
    path = RESULTS / f"load-{scenario}-{at:%Y%m%dT%H%M%SZ}.html"
    content = {"at": at.isoformat(), "lag": lag, "runs": dict(zip(names, reports, strict=True))}
    path.with_suffix(".json").write_text(json.dumps(content))
    body = f"<pre>read model behind the write model: {lag}</pre>"
    for name, report in zip(names, reports, strict=True):
        body += f"<h2>{name}</h2><pre>{summary(name, report)}</pre>{_histogram(report['histogram'] or ())}"
    path.write_text(PAGE.format(title=f"Load: {scenario}", body=body))
    return path


def _histogram(buckets: Sequence[dict]) -> str:  # type: ignore[type-arg]
    most = max((bucket["count"] for bucket in buckets), default=0) or 1
    rows = (
        f"<tr><td>{1000 * bucket['mark']:.1f} ms<td>{bucket['count']:,}"
        f'<td><div class="bar" style="width: {400 * bucket["count"] / most:.0f}px"></div>'
        for bucket in buckets
    )
    return f"<table><tr><th>up to<th>calls<th>{''.join(rows)}</table>"


if __name__ == "__main__":
    found = shutil.which("ghz") or shutil.which(Path(sys.executable).with_name("ghz"))
    if found is None:
        sys.exit(INSTALL)
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "mixed", found))
    except (StartError, RuntimeError) as error:
        sys.exit(f"load: {error}")
