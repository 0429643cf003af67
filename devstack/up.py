"""`make up`: the local stack in the foreground until Ctrl-C; failed servers and processes are restarted."""

import asyncio
import signal
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import click

from devstack import stack_kinds
from devstack.child import Output
from devstack.foreground import own_foreground
from devstack.processes import Process
from devstack.servers import Server
from devstack.stack import Stack
from operations.processes import KINDS
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

FOLDER = Path(".diptych")
RESTART_PAUSE = 1.0
"""Seconds before a failed server or process is restarted."""

Part = Server | Process

_WIDTH = max(len(kind.name) for kind in KINDS)
_COLOURS = ("cyan", "magenta", "blue", "yellow")


def run(settings: Settings) -> None:
    """Run the local stack until Ctrl-C, SIGTERM, or the end of the terminal.

    Args:
        settings: the user's own; servers that they name are used, not started.

    Raises:
        StartError: a port is taken, or something does not start.
    """
    with own_foreground():
        asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stack = stack_kinds.local_stack(FOLDER, settings, Console().output)
    starting = asyncio.create_task(stack.start())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.is_set():
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return
    await starting
    print_line(describe(stack))
    parts: list[Part] = [*stack.servers.values(), *stack.processes]
    supervisors = [asyncio.create_task(_supervise(part)) for part in parts]
    await waiting
    print_line("Stopping")
    for supervisor in supervisors:
        supervisor.cancel()
    await stack.stop()
    print_line("Stopped")


class Console:
    """Prints the processes' lines, each after the name of its process in a colour of its own."""

    def __init__(self) -> None:
        self._colours = cycle(_COLOURS)

    def output(self, name: str) -> Output:
        """Return the receiver of a process's lines."""
        prefix = click.style(f"{name:{_WIDTH}} │ ", fg=next(self._colours))
        return lambda line: print_line(prefix + line)


def print_line(line: str) -> None:
    """Print a line, without colours unless to a terminal; a closed terminal is no error."""
    with suppress(OSError):
        click.echo(line)


def describe(stack: Stack) -> str:
    """Return the addresses of a running stack, and how to get a token."""
    settings = stack.settings
    rows = {
        "commands": settings.command_address,
        "queries": settings.query_address,
        "operations": settings.operations_address,
        "PostgreSQL": settings.database_url,
        "NATS": settings.nats_url,
        "Redis": settings.redis_url,
        "data, keys": f"{FOLDER}/",
        "token": ".venv/bin/devstack token --scope ordering.write --scope ordering.read",
    }
    title = click.style("Diptych is up; Ctrl-C stops it", bold=True)
    return "\n".join(["", title, *(f"  {subject:11} {value}" for subject, value in rows.items()), ""])


async def _supervise(part: Part) -> None:
    """Restart a server or process whenever it ends."""
    while True:
        code = await part.child.wait_ended()
        print_line(click.style(f"{part.name} ended with exit code {code}; restarting", fg="red"))
        await asyncio.sleep(RESTART_PAUSE)
        try:
            await part.start()
        except StartError as error:
            print_line(click.style(str(error), fg="red"))
