"""The lifecycle of a process, from its settings to its exit code.

How it works:

1. `run_process` sets up logs and telemetry, creates the event loop and runs `main(lifecycle)` in it.
2. SIGTERM and SIGINT set `lifecycle.stopping`. `main` watches that event, finishes the work in progress and
   returns. It gets `stop_grace` seconds and a small margin; after that the process ends with an error.
3. Tasks started by `lifecycle.spawn` run beside `main`. A task that fails sets `stopping` and `failed`, so
   that the process never continues without one of its parts. Remaining tasks are cancelled after `main`.
4. Exit codes: 0 after SIGTERM or SIGINT, 1 if the process could not start (`StartError`), 2 if a setting is
   invalid, 70 if `main` or a task failed, the time to stop ran out, or the event loop stood still
   (`runtime.process.watchdog`).
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import uvloop
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from contracts.manifest import Manifest, find_manifests
from runtime.process import logs
from runtime.process.logs import output
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.process.terminal import escape, is_unicode
from runtime.process.watchdog import Watchdog
from runtime.telemetry import setup
from runtime.telemetry.setup import SINGLE, WorkerRole
from runtime.tls.plaintext_stores import warn_of_plaintext

EXIT_FAILURE = 70  # EX_SOFTWARE of sysexits.h

_STOP_MARGIN = 5.0
"""Seconds beyond `stop_grace` before a process that has not stopped is ended."""

GC_THRESHOLDS = 20_000, 20, 50
"""The thresholds of Python's three garbage generations. By default the collector scans in-flight calls and
caches again and again, which costs a twentieth of a command server's time under load and a fifth of a
projector's."""

_CANCEL_INTERVAL = 1.0
"""Seconds after which a task that has not ended is cancelled again."""

log = logs.get_logger(__name__)


class Lifecycle:
    """The stop event of a running process, and its background tasks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        """Set when the process has to end: finish the work in progress, then return from `main`."""
        self.failed = False
        self.start_error: StartError | None = None
        """Of a task that has found out later that the process should not have started."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self.stopping.set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a task beside `main`. An exception in it stops the process with exit code 70, or that of a
        `StartError`.

        The task is cancelled after `main` has returned.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or not (error := task.exception()):
            return
        if isinstance(error, StartError):
            self.start_error = error
        else:
            log.error("Task failed; stopping process", task=task.get_name(), exc_info=error)
        self.failed = True
        self.stop()

    async def wait(self, seconds: float) -> bool:
        """Wait until the process stops, but no longer than this; return whether it stops."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def cancel_tasks(self) -> None:
        """Cancel all spawned tasks that still run, and wait until they have ended."""
        await cancel_and_wait(*self._tasks)


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended: `asyncio.wait_for` of Python 3.11 may swallow a cancellation.

    A cancellation of the caller takes effect once they have ended, because it may be one of those repeated.
    Their errors go to the log at the level `debug`: nothing else reads them, and the caller has one already.
    """
    running = set(tasks)
    interrupted: asyncio.CancelledError | None = None
    while running:
        for task in running:
            task.cancel()
        try:
            _, running = await asyncio.wait(running, timeout=_CANCEL_INTERVAL)
        except asyncio.CancelledError as cancellation:
            interrupted = cancellation
            running = {task for task in running if not task.done()}
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            log.debug("Task failed beside another", task=task.get_name(), error=repr(error))
    if interrupted:
        raise interrupted


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Main = Callable[[Lifecycle], Awaitable[None]]


def read_settings() -> Settings:
    """Read the settings from the environment. Invalid settings end the process with exit code 2."""
    try:
        return parse_settings()
    except InvalidSetting as error:
        sys.exit(_report_start_error("settings", error))


def parse_settings() -> Settings:
    """Return the settings in the environment.

    Raises:
        InvalidSetting: some are invalid; the message names them all.
    """
    for name, value in os.environ.items():
        if name.startswith(("DIPTYCH_", "OTEL_")) and not is_unicode(value):
            raise InvalidSetting(f"{name}: is not UTF-8")
    try:
        return Settings()
    except ValidationError as error:
        raise InvalidSetting("; ".join(map(_describe, error.errors()))) from error


def _describe(error: ErrorDetails) -> str:
    name = "_".join(map(str, error["loc"])).upper()
    return f"DIPTYCH_{name}: {error['msg'].removeprefix('Value error, ')}"


def read_contexts() -> dict[str, Manifest]:
    """Return the manifests of all installed contexts. Invalid ones end the process with exit code 1."""
    try:
        return find_manifests()
    except ValueError as error:
        sys.exit(_report_start_error("contexts", StartError(str(error))))


def _report_start_error(name: str, error: StartError) -> int:
    logs.flush()  # earlier log lines must precede this one if stdout and stderr share a file
    output.write_to_stderr(f"{name}: {escape(str(error))}\n")
    return error.exit_code


def run_process(main: Main, name: str, settings: Settings, *, role: WorkerRole = SINGLE) -> NoReturn:
    """Run a process to its end and exit.

    Args:
        main: returns when `lifecycle.stopping` is set and the work in progress has ended.
        name: the process's name in traces and metrics, for instance `command_server`.
        settings: the process's settings.
        role: of the process among workers, for telemetry.
    """
    logs.configure(settings.log_level, settings.log_format, service=name)
    output.take_over()
    if role.parent is None:  # workers would say the same
        warn_of_plaintext(settings)
    try:
        setup.configure(name, settings, role)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_run_main(main, name, Lifecycle(settings)))
    except StartError as error:
        sys.exit(_report_start_error(name, error))
    finally:
        setup.shutdown()
    sys.exit(code)


async def _run_main(main: Main, name: str, lifecycle: Lifecycle) -> int:
    """Run `main` to its end, or until the time to stop runs out; return the exit code."""
    loop = asyncio.get_running_loop()
    gc.freeze()  # imported modules stay in memory, so the collector need not scan them
    gc.set_threshold(*GC_THRESHOLDS)
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, lifecycle.stop)
    watchdog = Watchdog(lifecycle.settings.stall_report, lifecycle.settings.stall_exit)
    running = asyncio.ensure_future(main(lifecycle))
    stopping = asyncio.create_task(lifecycle.stopping.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait_for(running, lifecycle.settings.stop_grace + _STOP_MARGIN)
    except StartError as error:
        return _report_start_error(name, error)
    except TimeoutError:
        log.error("Process did not stop in time", seconds=lifecycle.settings.stop_grace + _STOP_MARGIN)
        return EXIT_FAILURE
    except Exception:
        log.exception("Process failed")
        return EXIT_FAILURE
    finally:
        stopping.cancel()
        await lifecycle.cancel_tasks()
        watchdog.stop()
        for number in STOP_SIGNALS:  # a further signal while the interpreter ends would change the exit code
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
    if lifecycle.start_error is not None:
        return _report_start_error(name, lifecycle.start_error)
    return EXIT_FAILURE if lifecycle.failed else 0
