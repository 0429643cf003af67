"""`make load SCENARIO=mixed`: runs ghz on the local stack and samples the lag of the read model meanwhile.

A scenario is one file in `bench/ghz`, or several that run at once (`mixed.command.json`, `mixed.query.json`).
All are open loops: they send at their rate, independent of responses.
"""

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from bench.load_data import create_data, wait_for_sagas
from bench.load_lag import LagProbe
from bench.load_report import save, summarise
from devstack import tokens
from devstack.child import Child
from operations.processes import check_health
from runtime.process.lifecycle import read_settings
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

SCENARIOS = Path(__file__).with_name("ghz")
INSTALL_HINT = "make: load needs ghz: `make tools` installs it with Go 1.23 or later"
CONTEXTS = ("banking", "catalogue", "customers", "inventory", "ordering", "ticketing")
MODULES = [
    import_module(f"diptych.{context}.v1.{kind}_service_pb2")
    for context in CONTEXTS
    for kind in ("command", "query")
]
DESCRIPTORS = Path(".cache", "load.protoset")
"""The descriptors of the messages, for ghz."""
SCOPES = [
    *(f"{context}.{scope}" for context in CONTEXTS for scope in ("read", "write", "all")),
    *("ordering.place", "ordering.own-prices", "catalogue.quote", "customers.find", "ticketing.buy"),
    *("banking.open", "banking.deposit", "banking.pay", "inventory.purchase"),
]
START_TIMEOUT = 60.0
"""Seconds within which the local stack has to serve."""


async def main(scenario: str, ghz: str, duration: str = "") -> None:
    """Run a scenario on the local stack; start the stack if it does not run.

    Args:
        scenario: its name.
        ghz: the program.
        duration: replaces the one of the scenario, for instance `10s`.

    Raises:
        StartError: there is no such scenario, or the stack does not start.
        RuntimeError: ghz failed.
    """
    files = find_files(scenario)
    write_descriptors(DESCRIPTORS, MODULES)
    settings = read_local_settings()
    lag = LagProbe(settings)
    async with run_stack(settings):
        token = tokens.mint(settings, SCOPES, "load", timedelta(hours=1))
        await create_data(settings, token)
        await wait_for_sagas(settings)
        sampling = asyncio.create_task(lag.run())
        arguments = [f"--duration={duration}"] if duration else []
        try:
            reports = await asyncio.gather(
                *(_run_ghz(ghz, file, select_address(file, settings), token, arguments) for file in files)
            )
        finally:  # also after Ctrl-C; a second one ends the waiting
            sampling.cancel()
            await wait_for_sagas(settings)
    for file, report in zip(files, reports, strict=True):
        print(summarise(file.stem, report))
    print(f"lag of the read model: {lag}")
    print(f"saved as {save(scenario, [file.stem for file in files], reports, str(lag))}")


def find_files(scenario: str) -> list[Path]:
    """Return the files of a scenario.

    Raises:
        StartError: there are none.
    """
    files = sorted([*SCENARIOS.glob(f"{scenario}.json"), *SCENARIOS.glob(f"{scenario}.*.json")])
    if not files:
        names = sorted({file.name.partition(".")[0] for file in SCENARIOS.glob("*.json")})
        raise StartError(f"there is no scenario {scenario}: there are {', '.join(names)}")
    return files


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


async def _run_ghz(program: str, file: Path, address: str, token: str, arguments: Sequence[str]) -> dict:  # type: ignore[type-arg]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config={file}",
        f"--protoset={DESCRIPTORS}",
        f"--metadata={json.dumps({'authorization': f'Bearer {token}'})}",
        "--format=json",
        *arguments,
        address,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"ghz: {error.decode() or out.decode()}")
    return dict(json.loads(out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.load_test")
    parser.add_argument("scenario", nargs="?", default="mixed")
    parser.add_argument("--duration", default="", help="replaces the scenario's, for instance 10s")
    arguments = parser.parse_args()
    program = shutil.which("ghz") or shutil.which(Path(sys.executable).with_name("ghz"))
    if program is None:
        sys.exit(INSTALL_HINT)
    try:
        asyncio.run(main(arguments.scenario, program, arguments.duration))
    except KeyboardInterrupt:
        sys.exit("load: interrupted")
    except (StartError, RuntimeError) as error:
        sys.exit(f"load: {error}")
