"""How a process lives: it is set up, runs until it is told to stop, and says how it ended.

Exit codes: 0 after SIGTERM or SIGINT, 1 where it could not start, 70 where a part of it died.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import uvloop
from pydantic import ValidationError

from runtime.process import logs
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from runtime.telemetry import setup

REFUSED = 1
CRASHED = 70  # EX_SOFTWARE of sysexits.h

_OVERTIME = 5.0
"""Seconds beyond `stop_grace` after which a process that does not end is ended."""

GARBAGE = 20_000, 20, 50
"""Objects that are made before Python looks for unreachable ones among the newest; so many of these looks
before it takes in older ones, and then all. By default it would go through what is in flight and cached
again and again, which takes a twentieth of a command server's time under load and a fifth of a
projector's."""

_AGAIN = 1.0
"""Seconds after which a task that has not ended is cancelled once more."""

log = logs.get_logger(__name__)


class Lifecycle:
    """A running process: when it stops, and the tasks that must not die before."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        """Set once the process is to end: finish what is under way, then return from main."""
        self.failed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self.stopping.set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a task beside main. If it raises, the process stops with exit code 70, not living on half dead.

        It is cancelled once main has returned.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("A task died, the process stops", task=task.get_name(), exc_info=error)
            self.failed = True
            self.stop()

    async def wait(self, seconds: float) -> bool:
        """Wait this long, or until the process stops; return whether it stops."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def cancel_tasks(self) -> None:
        """Cancel what was spawned and is still running, and wait for it."""
        await cancelled(*self._tasks)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended: `asyncio.wait_for` of Python 3.11 may swallow a cancellation."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN)


STOPS = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a process to stop."""

Main = Callable[[Lifecycle], Awaitable[None]]


def read_settings() -> Settings:
    """Read the settings; where one is wrong, say so in a line and exit with 1."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"DIPTYCH_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        refuse("settings", wrong)


def refuse(name: str, why: str) -> NoReturn:
    """Say in one line on stderr why this process does not start, and exit with 1."""
    sys.exit(_refused(name, why))


def _refused(name: str, why: str) -> int:
    logs.flush()
    sys.stderr.write(f"{name}: {why}\n")
    return REFUSED


def run_process(main: Main, name: str, settings: Settings) -> NoReturn:
    """Run a process to its end and exit.

    Args:
        main: returns after `lifecycle.stopping` is set and everything under way has ended.
        name: of the process, for instance `command_server`; its traces and metrics carry it.
        settings: the process's settings.
    """
    logs.configure(settings.log_level, settings.log_format)
    try:
        setup.configure(name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_live(main, name, Lifecycle(settings)))
    except StartError as error:
        refuse(name, str(error))
    finally:
        setup.shutdown()
    sys.exit(code)


async def _live(main: Main, name: str, lifecycle: Lifecycle) -> int:
    """Run main until it returns, watching signals and its time to stop; return the exit code."""
    loop = asyncio.get_running_loop()
    gc.freeze()  # what was imported stays
    gc.set_threshold(*GARBAGE)
    for number in STOPS:
        loop.add_signal_handler(number, lifecycle.stop)
    running = asyncio.ensure_future(main(lifecycle))
    stopping = asyncio.create_task(lifecycle.stopping.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait_for(running, lifecycle.settings.stop_grace + _OVERTIME)
    except StartError as error:
        return _refused(name, str(error))
    except TimeoutError:
        log.error("The process did not stop in time", seconds=lifecycle.settings.stop_grace + _OVERTIME)
        return CRASHED
    except Exception:
        log.exception("The process died")
        return CRASHED
    finally:
        stopping.cancel()
        await lifecycle.cancel_tasks()
        for number in STOPS:  # another one, while the interpreter ends, would change the exit code
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
    return CRASHED if lifecycle.failed else 0
