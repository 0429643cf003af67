"""Generates Python stubs from the protos of a repository (docs/adr/0017).

    python -m operations.generate PROTOS OUT [IMPORTS ...]

OUT becomes a source root with a package for each Protobuf package in PROTOS. The protos of Diptych, of buf's
rules and of Google's common types may be imported; further folders of imported protos are IMPORTS.

How it works. protoc reads the protos into descriptors. The import of buf/validate/validate.proto is removed
from them, so that the generated modules need no package `buf`; the rules stay in the descriptors, as options
that protobuf keeps without knowing them and that protovalidate reads. From the result protoc generates the
modules.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import diptych
from google import type as google_types
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from runtime.process.start_error import StartError

RULES = "buf/validate/validate.proto"


def generate(protos: Path, out: Path, imports: Sequence[Path] = ()) -> list[str]:
    """Generate the modules of all protos; return the paths of the protos, relative to their folder.

    Args:
        protos: the folder of the protos, the root of their packages.
        out: the folder for the modules. Other files in it stay.
        imports: further folders of protos that these import.

    Raises:
        StartError: there are no protos, protoc is not installed, or it finds errors in them.
    """
    files, descriptors = describe(protos, imports)
    with NamedTemporaryFile() as file:
        file.write(descriptors)
        file.flush()
        outputs = ("--python_out=", "--grpc_python_out=", "--mypy_out=quiet:", "--mypy_grpc_out=quiet:")
        _run_protoc(f"--descriptor_set_in={file.name}", *(f"{each}{out}" for each in outputs), *files)
    return files


def describe(protos: Path, imports: Sequence[Path] = ()) -> tuple[list[str], bytes]:
    """Return the paths of all protos, and the descriptors from which stubs in any language are generated.

    The descriptors are a serialised FileDescriptorSet with everything imported but buf's rules. Arguments and
    errors are those of `generate`.
    """
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    if not files:
        raise StartError(f"there are no protos in {protos}/")
    roots = [protos, *imports, *_list_installed_protos()]
    with NamedTemporaryFile() as file:
        options = ("--include_imports", "--include_source_info", f"--descriptor_set_out={file.name}")
        _run_protoc(*(f"-I{root}" for root in roots), *options, *files)
        return files, _remove_rules_import(Path(file.name).read_bytes())


def _list_installed_protos() -> list[Path]:
    """Return the folders of the protos that the installed packages ship: Diptych's, buf's and Google's."""
    shipped = [Path(root) / "protos" for root in diptych.__path__]
    google = [Path(root).parents[1] for root in google_types.__path__]
    return [*filter(Path.is_dir, shipped), *google]


def _run_protoc(*arguments: str) -> None:
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # protoc's plugins
    result = subprocess.run(  # noqa: S603 - the arguments are paths
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        env={**os.environ, "PATH": tools},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise StartError(result.stderr.strip() or f"protoc failed with exit code {result.returncode}")


def _remove_rules_import(data: bytes) -> bytes:
    """Return the descriptors without the import of buf's rules.

    Args:
        data: a serialised FileDescriptorSet.

    Raises:
        StartError: a file has public or weak imports, which are indexes of imports.
    """
    descriptors = FileDescriptorSet.FromString(data)
    for file in descriptors.file:
        if file.public_dependency or file.weak_dependency:
            raise StartError(f"{file.name}: public and weak imports are not supported")
        if RULES in file.dependency:
            file.dependency.remove(RULES)
    return descriptors.SerializeToString()


if __name__ == "__main__":
    try:
        folders = [Path(argument) for argument in sys.argv[1:]]
        generate(folders[0], folders[1], folders[2:])
    except StartError as error:
        sys.exit(f"generate: {error}")
