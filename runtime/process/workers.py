"""The command line of a server: how many processes share its address, and which contexts they serve.

With `--workers N` a parent starts N children and replaces those that die. The kernel spreads connections
among the children (SO_REUSEPORT); the parent itself binds nothing.
"""

import argparse
import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import NoReturn, TypeVar

from runtime.grpc.server import check_free
from runtime.process import logs
from runtime.process.lifecycle import REFUSED, Lifecycle, Main, run_process
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

C = TypeVar("C")

log = logs.get_logger(__name__)

_PAUSE = 1.0
"""Seconds before a dead worker is replaced, so that one that dies at once does not keep the host busy."""


def run(
    serve: Callable[[Lifecycle, Sequence[C]], Awaitable[None]],
    name: str,
    settings: Settings,
    address: str,
    contexts: Mapping[str, C],
) -> NoReturn:
    """Run a server as its command line says, in this process or in several, and exit.

    Args:
        serve: serves contexts until the process stops; as `main` for `run_process` otherwise.
        name: of the process, which is also its module's.
        settings: the process's settings.
        address: where it listens.
        contexts: all that it can serve, by their names.
    """
    arguments = _arguments(name, contexts)
    chosen = [contexts[context] for context in arguments.contexts]

    async def main(lifecycle: Lifecycle) -> None:
        await serve(lifecycle, chosen)

    if arguments.worker:
        run_process(_with_parent(main), name, settings.model_copy(update={"reuse_port": True}))
    if arguments.workers == 1:
        run_process(main, name, settings)
    worker = (name, "--worker", "--contexts", ",".join(arguments.contexts))
    run_process(lambda lifecycle: _supervise(lifecycle, worker, arguments.workers, address), name, settings)


def _arguments(name: str, contexts: Collection[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=f"Run the {name.replace('_', ' ')}."
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that share the address"
    )
    parser.add_argument(
        "--contexts", default=",".join(contexts), metavar="A,B", help="what it serves (default: %(default)s)"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.contexts = [part for part in arguments.contexts.split(",") if part]
    if arguments.workers < 1:
        parser.error("--workers: at least 1")
    for unknown in set(arguments.contexts) - set(contexts):
        parser.error(f"--contexts: there is no {unknown}, there is {', '.join(contexts)}")
    if contexts and not arguments.contexts:
        parser.error("--contexts: at least one")
    return arguments


def _with_parent(main: Main) -> Main:
    """Return main as a worker runs it: it stops when its parent is gone, however the parent ended."""

    async def worker(lifecycle: Lifecycle) -> None:
        loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

        def parent_gone() -> None:  # nothing is ever written to this pipe: readable means closed
            loop.remove_reader(stdin)
            lifecycle.stop()

        loop.add_reader(stdin, parent_gone)
        await main(lifecycle)

    return worker


async def _supervise(lifecycle: Lifecycle, worker: Sequence[str], count: int, address: str) -> None:
    """Keep `count` workers, run by these arguments of Python's -m, running until the process stops.

    Raises:
        StartError: the address is taken or not a fixed one, or a worker did not start (and said why).
    """
    check_free(address)
    if address.endswith(":0"):
        raise StartError(f"workers cannot share {address}: it needs a port")
    codes = await asyncio.gather(*[_keep(lifecycle, worker) for _ in range(count)])
    if REFUSED in codes:
        raise StartError("a worker did not start")
    lifecycle.failed = lifecycle.failed or any(codes)


async def _keep(lifecycle: Lifecycle, arguments: Sequence[str]) -> int:
    """Keep one worker running, replacing it when it dies; return the exit code of the last."""
    code = 0
    while not lifecycle.stopping.is_set():
        worker = await create_subprocess_exec(sys.executable, "-m", *arguments, stdin=PIPE)
        log.info("A worker runs", pid=worker.pid)
        code = await _end_of(worker, lifecycle)
        if code == REFUSED:
            lifecycle.stop()
        elif not lifecycle.stopping.is_set():
            log.error("A worker died and is replaced", pid=worker.pid, code=code)
            code = 0
            await lifecycle.wait(_PAUSE)
    return 0 if code == -signal.SIGTERM else code  # told to stop before it could listen to that


async def _end_of(worker: Process, lifecycle: Lifecycle) -> int:
    """Wait for a worker's end, told to stop when the process stops; return its exit code."""
    ended = asyncio.create_task(worker.wait())
    stopping = asyncio.create_task(lifecycle.stopping.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ended.done():
        worker.send_signal(signal.SIGTERM)
    return await ended
