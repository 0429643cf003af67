"""An environment with the packages `diptych-client` and `diptych-stubs` alone can call a stack."""

import asyncio
import json
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
from diptych_client import service_config

from devstack.stack_kinds import temporary_stack
from tests.support.harness.wheels import ROOT, Environment, run_tool


@pytest.fixture(scope="module")
def client(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheels of client and stubs."""
    environment = Environment(tmp_path_factory.mktemp("client"))
    environment.install(*wheels.glob("diptych_client-*.whl"), *wheels.glob("diptych_stubs-*.whl"))
    return environment


def test_wheels_have_one_version_and_require_it_of_the_stubs(wheels: Path) -> None:
    version = (ROOT / "VERSION").read_text().strip()
    requirements = {}
    for wheel in wheels.glob("*.whl"):
        (distribution,) = distributions(path=[str(wheel)])
        assert distribution.version == version
        requirements[distribution.name] = distribution.requires or []
    assert requirements.keys() == {"diptych", "diptych-client", "diptych-stubs"}
    for package in ("diptych", "diptych-client"):
        assert f"diptych-stubs=={version}" in requirements[package]


def test_wheels_are_built_by_locked_files_alone(tmp_path: Path) -> None:
    locked = tmp_path / "build.txt"
    locked.write_text(re.sub("sha256:.{8}", "sha256:00000000", (ROOT / "build.txt").read_text()))
    command = ("make", "-s", "-o", ".venv/.ready", "dist", f"DIST={tmp_path}", f"BUILD_PIN={locked}")
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert build.returncode != 0
    assert "Hash mismatch for `" in build.stderr
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.long
def test_the_servers_wheel_runs_in_an_environment_of_its_own(wheels: Path, tmp_path: Path) -> None:
    servers = Environment(tmp_path)
    servers.install(*wheels.glob("*.whl"))
    run_tool(servers.python.with_name("diptych"), "--version")
    for process in ("command_server", "query_server"):
        run_tool(servers.python, "-I", "-m", process, "--help")


def test_every_module_can_be_imported_in_an_environment_of_its_own(client: Environment) -> None:
    generated = ROOT / "generated"
    files = (generated / "diptych").rglob("*_pb2*.py")
    modules = [".".join(file.relative_to(generated).with_suffix("").parts) for file in files]
    assert "diptych.ordering.v1.command_service_pb2_grpc" in modules
    client.run("\n".join(f"import {module}" for module in modules))


def test_the_environment_holds_no_server_dependency(client: Environment) -> None:
    program = "from importlib.metadata import distributions\nfor d in distributions(): print(d.name)"
    assert set(client.run(program).split()) == {
        "diptych-client",
        "diptych-stubs",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "typing_extensions",
    }


def test_the_types_are_shipped(client: Environment) -> None:
    assert (client.packages / "diptych_client/py.typed").exists()
    assert (client.packages / "diptych/py.typed").exists()
    assert (client.packages / "diptych/ordering/v1/command_service_pb2_grpc.pyi").exists()


def test_the_service_config_is_found_in_the_installed_stubs(client: Environment) -> None:
    program = "import runpy; runpy.run_module('diptych_client', run_name='__main__')"
    assert json.loads(client.run(program)) == service_config()


async def test_the_readmes_first_order_ends_confirmed(client: Environment, tmp_path: Path) -> None:
    program = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 30
    async with temporary_stack(tmp_path, process_managers=1) as stack:
        program = program.replace("127.0.0.1:50051", stack.settings.command_address)
        program = program.replace("127.0.0.1:50052", stack.settings.query_address)
        token = stack.token(
            *("ordering.place", "ordering.own-prices", "ordering.read", "ordering.all", "inventory.write"),
            *("banking.open", "banking.deposit", "banking.all"),
        )
        output = await asyncio.to_thread(client.run, program, TOKEN=token)
    assert output.split() == ["STATE_PLACED", "STATE_CONFIRMED"]
