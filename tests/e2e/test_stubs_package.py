"""A client with only the package `diptych-stubs` can install and import it, and call a stack."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from devstack.stack_kinds import temporary_stack

ROOT = Path(__file__).parents[2]


def uv(*arguments: str | Path) -> None:
    result = subprocess.run(
        [ROOT / ".venv/bin/uv", "--quiet", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def client_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the package's wheel and its dependencies only."""
    folder = tmp_path_factory.mktemp("client")
    uv("build", "--wheel", "--out-dir", folder, ROOT / "generated")
    (wheel,) = folder.glob("*.whl")
    # The locked versions, because uv has already downloaded them.
    locked = ("--frozen", "--package", "diptych-stubs", "--no-emit-workspace", "--no-hashes", "--no-dev")
    uv("export", *locked, "--output-file", folder / "locked.txt")
    uv("venv", folder / "venv")
    python = folder / "venv/bin/python"
    uv("pip", "install", "--python", python, "--constraint", folder / "locked.txt", wheel)
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
        "diptych-stubs",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "typing_extensions",
    }


def test_the_types_are_shipped(client_python: Path) -> None:
    (package,) = client_python.parents[1].glob("lib/*/site-packages/diptych")
    assert (package / "py.typed").exists()
    assert (package / "ordering/v1/command_service_pb2_grpc.pyi").exists()


async def test_the_readmes_first_order_ends_confirmed(client_python: Path, tmp_path: Path) -> None:
    program = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 30
    async with temporary_stack(tmp_path, process_managers=1) as stack:
        program = program.replace("127.0.0.1:50051", stack.settings.command_address)
        program = program.replace("127.0.0.1:50052", stack.settings.query_address)
        token = stack.token("ordering.write", "ordering.read", "inventory.write", "banking.write")
        output = await asyncio.to_thread(run, client_python, program, TOKEN=token)
    assert output.split() == ["STATE_PLACED", "STATE_CONFIRMED"]
