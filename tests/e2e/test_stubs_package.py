"""An environment with the packages `diptych-client` and `diptych-stubs` alone can call a stack."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
from diptych_client import service_config

from devstack.stack_kinds import temporary_stack

ROOT = Path(__file__).parents[2]


def uv(*arguments: str | Path) -> None:
    result = subprocess.run(
        [ROOT / ".venv/bin/uv", "--quiet", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the packages' wheels and their dependencies only."""
    folder = tmp_path_factory.mktemp("client")
    for package in ("generated", "client"):
        uv("build", "--wheel", "--out-dir", folder, ROOT / package)
    wheels = sorted(folder.glob("*.whl"))
    assert len(wheels) == 2
    # The locked versions, because uv has already downloaded them.
    locked = ("--frozen", "--package", "diptych-client", "--no-emit-workspace", "--no-hashes", "--no-dev")
    uv("export", *locked, "--output-file", folder / "locked.txt")
    uv("venv", folder / "venv")
    python = folder / "venv/bin/python"
    uv("pip", "install", "--python", python, "--constraint", folder / "locked.txt", *wheels)
    return python


def run(python: Path, program: str, **variables: str) -> str:
    result = subprocess.run(
        [python, "-I", "-c", program], env=os.environ | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


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
