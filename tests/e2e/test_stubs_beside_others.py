"""The stubs and another package that ships `buf/validate`, in another version, leave each other alone."""

from pathlib import Path

import pytest

from tests.support.harness.wheels import ROOT, Environment, build_wheel, run_tool

OURS = "diptych-stubs"
OTHER = "another-companys-stubs"
IMPORT_OURS = "from diptych.ordering.v1 import command_service_pb2, command_service_pb2_grpc"
IMPORT_OTHER = """
from buf.validate import validate_pb2
from another_company import thing_pb2
rules = thing_pb2.Thing.DESCRIPTOR.fields_by_name["name"].GetOptions().Extensions[validate_pb2.field]
assert rules.string.max_len == 7, rules
"""
PROJECT = f"""
[project]
name = "{OTHER}"
version = "1"
dependencies = ["protobuf"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
only-include = ["another_company", "buf"]
"""
THING = """
syntax = "proto3";
import "buf/validate/validate.proto";
message Thing { string name = 1 [(buf.validate.field).string.max_len = 7]; }
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each package."""
    folder = tmp_path_factory.mktemp("other")
    run_tool("make", ".cache/protos/.ready")
    rules = (ROOT / ".cache/protos/buf/validate/validate.proto").read_text()
    protos = {
        "buf/validate/validate.proto": f"{rules}\nmessage Newer {{}}\n",
        "another_company/thing.proto": THING,
    }
    for name, text in protos.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    run_tool(
        ROOT / ".venv/bin/python", "-m", "grpc_tools.protoc", "-I", folder, f"--python_out={folder}", *protos
    )
    (folder / "pyproject.toml").write_text(PROJECT)
    ours = tmp_path_factory.mktemp("ours")
    return {OURS: build_wheel(ROOT / "generated", ours), OTHER: build_wheel(folder, folder / "dist")}


@pytest.mark.long
@pytest.mark.parametrize("removed", [OURS, OTHER])
@pytest.mark.parametrize("order", [(OURS, OTHER), (OTHER, OURS)], ids=["ours-first", "ours-last"])
def test_each_package_works_beside_the_other_and_after_its_removal(
    wheels: dict[str, Path], tmp_path: Path, order: tuple[str, str], removed: str
) -> None:
    environment = Environment(tmp_path)
    for package in order:
        environment.install(wheels[package])
    environment.run(f"{IMPORT_OURS}\n{IMPORT_OTHER}")
    environment.run(f"{IMPORT_OTHER}\n{IMPORT_OURS}")
    environment.uninstall(removed)
    environment.run(IMPORT_OTHER if removed == OURS else IMPORT_OURS)
