"""A process that has imported the third-party packages, and forks into programs that need them.

These imports are most of the CPU time of a start, and starts were a fourth of the suite's. The project's own
modules are not imported here: each program imports them itself, under its own settings, as after an exec.
Nothing of the packages runs before the fork: gRPC, for instance, does not survive one.

`tests.support.harness.forked_process` starts the template and sends the requests.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGES = (
    "argparse",
    "asyncpg",
    "click",
    "grpc_health.v1.health_pb2_grpc",
    "grpc_reflection.v1alpha.reflection",
    "grpc_status.rpc_status",
    "jwt",
    "msgspec",
    "nats.js",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.sdk.metrics",
    "protovalidate",
    "pydantic_settings",
    "redis.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "uvloop",
)
MAX_REQUEST, MAX_DESCRIPTORS = 2**17, 16
READY = b"ready"
PR_SET_PDEATHSIG = 1


def main(requests: socket.socket) -> None:
    """Fork once per request until the other side closes the socket; return in the forked processes, too."""
    for package in PACKAGES:
        importlib.import_module(package)
    gc.collect()
    gc.freeze()  # a later collection would write to, and so copy, every page
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        sys.exit("fork_template: an imported package has started a thread")
    requests.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST, MAX_DESCRIPTORS)
        if not message:
            return
        pid = fork_orphan()
        if not pid:
            requests.close()
            run(json.loads(message), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


def fork_orphan() -> int:
    """Fork a process whose parent ends at once, so that the requesting process, a subreaper, adopts it.

    Returns:
        Its process id; 0 in the process itself, which continues after its adoption.
    """
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    if parent := os.fork():
        pid = int(os.read(from_child, 32))
        os.waitpid(parent, 0)
        os.write(to_child, b"adopted")
    elif os.fork():
        os._exit(0)
    else:
        os.write(to_parent, str(os.getpid()).encode())
        os.read(from_parent, 32)
        pid = 0
    for descriptor in (from_child, to_parent, from_parent, to_child):
        os.close(descriptor)
    return pid


def run(request: dict[str, Any], descriptors: list[int]) -> None:
    """Run a program in this process.

    Args:
        request: see `forked_process.start_python`.
        descriptors: stdin, stdout and stderr, and those that the program inherits.
    """
    if request["own_session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for descriptor in descriptors[3:]:
        os.set_inheritable(descriptor, True)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, request["death_signal"])
    if os.getppid() != request["parent"]:
        sys.exit("fork_template: the parent process has ended already")
    run_python(request["arguments"], request["folder"])


def run_python(arguments: list[str], folder: str) -> None:
    """Do what `python` does with these arguments: `-m MODULE`, `-c PROGRAM` or a script, and those for it."""
    option, *rest = arguments
    first = {"-m": folder, "-c": ""}.get(option, str(Path(option).parent))
    sys.path[:0] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    sys.modules.pop("sitecustomize", None)  # the template's own
    with suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")
    match option:
        case "-m":
            sys.argv = ["-m", *rest[1:]]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        case "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(rest[0], {"__name__": "__main__"})
        case _:
            sys.argv = [option, *rest]
            runpy.run_path(option, run_name="__main__")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
