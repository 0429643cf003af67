"""The command line of a process: the contexts that it runs and, of a server, the number of its workers.

With `--workers N` a parent starts N worker processes and replaces those that die. The kernel distributes
connections among the workers (SO_REUSEPORT); the parent listens only for scrapes of their metrics
(`runtime.telemetry.worker_metrics`). The stdin of a worker is a socket over which it sends its metrics, and
which ends with the parent.
"""

import argparse
import asyncio
import signal
import socket
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

from runtime.grpc.addresses import check_address_free
from runtime.process import logs
from runtime.process.contexts import add_contexts_argument
from runtime.process.lifecycle import Lifecycle, Main, cancel_and_wait, run_process
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.process.terminal import escape
from runtime.telemetry.metrics import WORKERS_REPLACED
from runtime.telemetry.setup import WorkerRole
from runtime.telemetry.worker_metrics import WorkerMetrics

C = TypeVar("C")

log = logs.get_logger(__name__)

_RESTART_DELAY = 1.0
"""Seconds before a dead worker is replaced, so that a worker that always dies does not keep the host busy."""
_LAST_METRICS_TIMEOUT = 1.0
"""Seconds within which the metrics of a worker that has ended must have arrived."""


def run_single(
    serve: Callable[[Lifecycle, Sequence[C]], Awaitable[None]],
    name: str,
    settings: Settings,
    contexts: Mapping[str, C],
) -> NoReturn:
    """Run a process without workers, and exit; for the arguments see `run`."""
    arguments = _create_parser(name, settings, contexts).parse_args()
    chosen_contexts = [contexts[context] for context in arguments.contexts]
    run_process(lambda lifecycle: serve(lifecycle, chosen_contexts), name, settings)


def run(
    serve: Callable[[Lifecycle, Sequence[C]], Awaitable[None]],
    name: str,
    settings: Settings,
    address: str,
    contexts: Mapping[str, C],
) -> NoReturn:
    """Run a server in one process or several, according to the command line, and exit.

    Args:
        serve: serves the chosen contexts until the process stops; see `main` of `run_process`.
        name: the process's name, which is also the name of its module.
        settings: the process's settings.
        address: `host:port` at which the server listens.
        contexts: all contexts that the server can serve, by name.
    """
    arguments = _parse_arguments(name, settings, contexts)
    chosen_contexts = [contexts[context] for context in arguments.contexts]

    async def main(lifecycle: Lifecycle) -> None:
        await serve(lifecycle, chosen_contexts)

    if arguments.worker:
        shared = settings.model_copy(update={"reuse_port": True})
        run_process(_stop_with_parent(main), name, shared, role=WorkerRole(parent=sys.stdin.fileno()))
    if arguments.workers == 1:
        run_process(main, name, settings)
    worker = (name, "--worker", "--contexts", ",".join(arguments.contexts))
    metrics = WorkerMetrics()
    run_process(
        lambda lifecycle: _supervise(lifecycle, worker, arguments.workers, address, metrics),
        name,
        settings,
        role=WorkerRole(metrics.collect),
    )


def _parse_arguments(name: str, settings: Settings, contexts: Mapping[str, object]) -> argparse.Namespace:
    parser = _create_parser(name, settings, contexts)
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="number of processes that share the address (default: 1)",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error("--workers: must be at least 1")
    return arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End the process with one line, without the usage."""
        self.exit(InvalidSetting.exit_code, f"{self.prog}: {escape(message)}\n")


def _create_parser(name: str, settings: Settings, contexts: Mapping[str, object]) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {name}", description=f"Run the {name.replace('_', ' ')}.")
    add_contexts_argument(parser, settings, contexts)
    return parser


def _stop_with_parent(main: Main) -> Main:
    """Return `main` for a worker: it also stops when the parent process has ended, even by SIGKILL."""

    async def worker(lifecycle: Lifecycle) -> None:
        loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

        def on_parent_end() -> None:  # nobody writes to this pipe: readable means closed
            loop.remove_reader(stdin)
            lifecycle.stop()

        loop.add_reader(stdin, on_parent_end)
        await main(lifecycle)

    return worker


async def _supervise(
    lifecycle: Lifecycle, worker: Sequence[str], count: int, address: str, metrics: WorkerMetrics
) -> None:
    """Keep workers running until the process stops.

    Args:
        lifecycle: of the parent.
        worker: the arguments of a worker after `python -m`.
        count: number of workers.
        address: `host:port` that the workers share.
        metrics: receives the metrics of the workers.

    Raises:
        StartError: the address is in use or has port 0, or a worker could not start (see its stderr).
    """
    check_address_free(address)
    if address.endswith(":0"):
        raise StartError(f"workers cannot share {address}: the port must not be 0")
    codes = await asyncio.gather(
        *[_keep_running(lifecycle, worker, number, metrics) for number in range(1, count + 1)]
    )
    for error in (InvalidSetting, StartError):
        if error.exit_code in codes:
            raise error("a worker did not start")
    lifecycle.failed = lifecycle.failed or any(codes)


async def _keep_running(
    lifecycle: Lifecycle, arguments: Sequence[str], number: int, metrics: WorkerMetrics
) -> int:
    """Run a worker and replace it when it dies; return the exit code of the last one."""
    code = 0
    while not lifecycle.stopping.is_set():
        own_end, worker_end = socket.socketpair()
        with worker_end:
            worker = await create_subprocess_exec(sys.executable, "-m", *arguments, stdin=worker_end.fileno())
        receiving = asyncio.create_task(metrics.receive(number, own_end))
        log.info("Worker started", pid=worker.pid)
        code = await _wait_ended(worker, lifecycle)
        await asyncio.wait({receiving}, timeout=_LAST_METRICS_TIMEOUT)
        await cancel_and_wait(receiving)
        if code in (StartError.exit_code, InvalidSetting.exit_code):
            lifecycle.stop()
        elif not lifecycle.stopping.is_set():
            log.error("Worker died; replacing it", pid=worker.pid, code=code)
            WORKERS_REPLACED.count(str(number))
            code = 0
            await lifecycle.wait(_RESTART_DELAY)
    return 0 if code == -signal.SIGTERM else code  # SIGTERM came before the worker had installed its handler


async def _wait_ended(worker: Process, lifecycle: Lifecycle) -> int:
    """Wait until a worker has ended, and pass on SIGTERM when the process stops; return the exit code."""
    ended = asyncio.create_task(worker.wait())
    stopping = asyncio.create_task(lifecycle.stopping.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ended.done():
        worker.send_signal(signal.SIGTERM)
    return await ended
