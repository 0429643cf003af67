"""An environment with the packages `diptych-client` and `diptych-stubs` alone can call a stack."""

import asyncio
import json
import os
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
from diptych_client import service_config

from devstack.stack_kinds import temporary_stack

ROOT = Path(__file__).parents[2]


def run_tool(*command: str | Path) -> None:
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def uv(*arguments: str | Path) -> None:
    run_tool(ROOT / ".venv/bin/uv", "--quiet", *arguments)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of `make dist`."""
    folder = tmp_path_factory.mktemp("wheels")
    run_tool("make", "-o", ".venv/.ready", "dist", f"DIST={folder}")
    return folder


@pytest.fixture(scope="module")
def locked(wheels: Path) -> Path:
    """Constraints to the locked versions, because uv has already downloaded them."""
    constraints = wheels / "locked.txt"
    uv("export", "--frozen", "--no-emit-workspace", "--no-hashes", "--no-dev", "--output-file", constraints)
    return constraints


@pytest.fixture(scope="module")
def client_python(wheels: Path, locked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the client's and the stubs' wheels, and what they require."""
    python = tmp_path_factory.mktemp("client") / "venv/bin/python"
    uv("venv", python.parents[1])
    install(python, locked, *wheels.glob("diptych_client-*.whl"), *wheels.glob("diptych_stubs-*.whl"))
    return python


def install(python: Path, constraints: Path, *packages: str | Path) -> None:
    uv("pip", "install", "--python", python, "--constraint", constraints, *packages)


def run(python: Path, program: str, **variables: str) -> str:
    result = subprocess.run(
        [python, "-I", "-c", program], env=os.environ | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


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


def test_the_servers_wheel_runs_in_an_environment_of_its_own(
    wheels: Path, locked: Path, tmp_path: Path
) -> None:
    python = tmp_path / "venv/bin/python"
    uv("venv", python.parents[1])
    install(python, locked, *wheels.glob("*.whl"))
    run_tool(python.with_name("diptych"), "--version")
    for process in ("command_server", "query_server"):
        run_tool(python, "-I", "-m", process, "--help")


def test_every_module_can_be_imported_in_an_environment_of_its_own(client_python: Path) -> None:
    generated = ROOT / "generated"
    files = [file for root in ("buf", "diptych") for file in (generated / root).rglob("*_pb2*.py")]
    modules = [".".join(file.relative_to(generated).with_suffix("").parts) for file in files]
    assert "diptych.ordering.v1.command_service_pb2_grpc" in modules
    run(client_python, "\n".join(f"import {module}" for module in modules))


def test_the_environment_holds_no_server_dependency(client_python: Path) -> None:
    program = "from importlib.metadata import distributions\nfor d in distributions(): print(d.name)"
    installed = set(run(client_python, program).split())
    assert installed == {
        "diptych-client",
        "diptych-stubs",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "typing_extensions",
    }


def test_the_types_are_shipped(client_python: Path) -> None:
    (packages,) = client_python.parents[1].glob("lib/*/site-packages")
    assert (packages / "diptych_client/py.typed").exists()
    assert (packages / "diptych/py.typed").exists()
    assert (packages / "diptych/ordering/v1/command_service_pb2_grpc.pyi").exists()


def test_the_service_config_is_found_in_the_installed_stubs(client_python: Path) -> None:
    program = "import runpy; runpy.run_module('diptych_client', run_name='__main__')"
    assert json.loads(run(client_python, program)) == service_config()


async def test_the_readmes_first_order_ends_confirmed(client_python: Path, tmp_path: Path) -> None:
    program = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 30
    async with temporary_stack(tmp_path, process_managers=1) as stack:
        program = program.replace("127.0.0.1:50051", stack.settings.command_address)
        program = program.replace("127.0.0.1:50052", stack.settings.query_address)
        token = stack.token("ordering.write", "ordering.read", "inventory.write", "banking.write")
        output = await asyncio.to_thread(run, client_python, program, TOKEN=token)
    assert output.split() == ["STATE_PLACED", "STATE_CONFIRMED"]
