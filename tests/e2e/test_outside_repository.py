"""A context in a repository of its own, which has nothing of this one but the wheels of `make dist`."""

import os
from pathlib import Path

import pytest

from tests.support.harness.wheels import ROOT, Environment, run_tool

ALL_CONTEXTS = """
import asyncio, sys
from pathlib import Path
from contracts.manifest import find_manifests
from devstack.stack_kinds import temporary_stack
from operations.verify.verification import verify

async def main():
    async with temporary_stack(Path(sys.argv[1]), process_managers=1) as stack:
        return await verify(stack.settings)

report = asyncio.run(main())
assert report.clean, report.to_text()
print(*find_manifests())
"""

PATH = os.pathsep.join(
    path for path in os.environ["PATH"].split(os.pathsep) if not Path(path).is_relative_to(ROOT)
)
"""Without the tools of this repository, which the other one must not need."""
TRIAL = ("TRIAL_DURATION = timedelta(days=30)", "TRIAL_DURATION = timedelta(seconds=5)")
TEST_OF_THE_TRIAL = """
import asyncio
from diptych_client import aio
from probe_context.v1 import command_service_pb2 as commands, query_service_pb2 as queries
from probe_context.v1.command_service_pb2_grpc import CommandServiceStub
from probe_context.v1.query_service_pb2_grpc import QueryServiceStub
from probe_context.v1.types_pb2 import Probe

async def test_the_process_manager_removes_a_probe_after_its_trial(stack):
    token = stack.token("probe_context.read", "probe_context.write")
    async with (
        aio.connect(stack.settings.command_address, token=token) as write,
        aio.connect(stack.settings.query_address, token=token, follows=write) as read,
    ):
        add = commands.AddProbeRequest(name="Ada")
        receipt = await write.send(CommandServiceStub(write.channel).AddProbe, add)
        watch = queries.WatchProbeRequest(probe_id=receipt.aggregate_id)
        service = QueryServiceStub(read.channel)
        async with asyncio.timeout(60):
            async for response in read.watch(service.WatchProbe, watch, fresh=receipt):
                if response.probe.state == Probe.STATE_REMOVED:
                    break
"""


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("environment"))
    (diptych,) = wheels.glob("diptych-*.whl")
    environment.install(
        f"diptych[develop] @ {diptych.as_uri()}",
        "pytest",
        "pytest-asyncio",
        *wheels.glob("diptych_*.whl"),
    )
    return environment


@pytest.fixture(scope="module")
def repository(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that `diptych new` writes, installed in the environment, with its stubs."""
    folder, diptych = tmp_path_factory.mktemp("outside"), environment.python.with_name("diptych")
    run_tool(diptych, "new", "probe_context", "probe", folder=folder)
    repository = folder / "probe_context"
    environment.install("--no-deps", "--editable", repository)
    run_tool(diptych, "generate", "protos", ".", folder=repository, PATH=PATH)
    sagas = repository / "probe_context/sagas.py"
    assert TRIAL[0] in sagas.read_text()
    sagas.write_text(sagas.read_text().replace(*TRIAL))
    (repository / "tests/test_trial.py").write_text(TEST_OF_THE_TRIAL)
    return repository


@pytest.mark.long
def test_it_is_served_projected_orchestrated_and_verified(environment: Environment, repository: Path) -> None:
    output = run_tool(environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=repository)
    assert " passed" in output


def test_it_is_found_beside_the_contexts_of_the_wheel(environment: Environment, repository: Path) -> None:
    names = environment.run("from contracts.manifest import find_manifests\nprint(*find_manifests())")
    assert {"ordering", "probe_context"} < set(names.split())


@pytest.mark.long
def test_it_runs_beside_the_contexts_of_the_wheel(
    environment: Environment, repository: Path, tmp_path: Path
) -> None:
    assert "probe_context" in run_tool(environment.python, "-c", ALL_CONTEXTS, tmp_path, folder=repository)


@pytest.mark.long
def test_its_own_makefile_sets_everything_up(wheels: Path, environment: Environment, tmp_path: Path) -> None:
    run_tool(environment.python.with_name("diptych"), "new", "probes", "gift_card", folder=tmp_path)
    variables = {"PATH": PATH, "PIP_FIND_LINKS": str(wheels)}
    assert " passed" in run_tool("make", "test", folder=tmp_path / "probes", **variables)
