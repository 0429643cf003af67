"""The ledger's Protobuf modules. A test process generates them once; its child processes import the same."""

import atexit
import shutil
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import google.type

HERE = Path(__file__).parent


def _generate() -> str:
    """Generate the modules in a temporary folder and return it; within this process, so in little time."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc

    folder = tempfile.mkdtemp(prefix="diptych-ledger-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    installed = (Path(google.type.__path__[0]).parents[1], Path(protoc.__file__).parent / "_proto")
    roots = (HERE / "protos", HERE / "imports", HERE.parents[2] / "protos", *installed)
    files = [str(path.relative_to(roots[0])) for path in roots[0].rglob("*.proto")]
    path = Path(folder) / "descriptors.binpb"
    read = (*(f"-I{root}" for root in roots), "--include_imports", f"--descriptor_set_out={path}")
    assert protoc.main(["protoc", *read, *files]) == 0
    descriptors = FileDescriptorSet.FromString(path.read_bytes())
    for file in descriptors.file:
        if "buf/validate/validate.proto" in file.dependency:  # the modules import no `buf` (docs/adr/0016)
            file.dependency.remove("buf/validate/validate.proto")
    path.write_bytes(descriptors.SerializeToString())
    written = (f"--descriptor_set_in={path}", f"--python_out={folder}", f"--grpc_python_out={folder}")
    assert protoc.main(["protoc", *written, *files]) == 0
    return folder


if find_spec("acme") is None:
    sys.path.append(_generate())

types: Any = import_module("acme.ledger.v1.types_pb2")
events: Any = import_module("acme.ledger.v1.events_pb2")
events_v2: Any = import_module("acme.ledger.v2.events_pb2")
commands: Any = import_module("acme.ledger.v1.command_service_pb2")
commands_v2: Any = import_module("acme.ledger.v2.command_service_pb2")
commands_grpc: Any = import_module("acme.ledger.v1.command_service_pb2_grpc")
commands_v2_grpc: Any = import_module("acme.ledger.v2.command_service_pb2_grpc")
queries: Any = import_module("acme.ledger.v1.query_service_pb2")
queries_grpc: Any = import_module("acme.ledger.v1.query_service_pb2_grpc")

FOLDER = Path(types.__file__).parents[3]
"""The folder with the generated modules, for the PYTHONPATH of child processes."""
