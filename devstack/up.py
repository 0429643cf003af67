"""`make up`: the local stack in the foreground until Ctrl-C; what dies is started again."""

import asyncio
import signal
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import click

from devstack import stacks
from devstack.child import Output
from devstack.processes import Process
from devstack.servers import Server
from devstack.stack import Stack
from devstack.terminal import keyboard
from operations.processes import KINDS
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

FOLDER = Path(".diptych")
PAUSE = 1.0
"""Seconds before something that died is started again."""

Part = Server | Process

_WIDTH = max(len(kind.name) for kind in KINDS)
_COLOURS = ("cyan", "magenta", "blue", "yellow")


def run(settings: Settings) -> None:
    """Keep the local stack up until Ctrl-C, SIGTERM, or the end of the terminal.

    Args:
        settings: the user's own; servers that they name are used rather than started.

    Raises:
        StartError: a port is taken, or something does not start.
    """
    with keyboard():
        asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stack = stacks.local(FOLDER, settings, Console().output)
    starting = asyncio.create_task(stack.start())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.is_set():
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return
    await starting
    say(addresses(stack))
    parts: list[Part] = [*stack.servers.values(), *stack.processes]
    keepers = [asyncio.create_task(_keep(part)) for part in parts]
    await waiting
    say("Stopping")
    for keeper in keepers:
        keeper.cancel()
    await stack.stop()
    say("Stopped")


class Console:
    """Shows the processes' lines, each behind its process's name in a colour of its own."""

    def __init__(self) -> None:
        self._colours = cycle(_COLOURS)

    def output(self, name: str) -> Output:
        """Return where the lines of a process go."""
        prefix = click.style(f"{name:{_WIDTH}} │ ", fg=next(self._colours))
        return lambda line: say(prefix + line)


def say(line: str) -> None:
    """Print a line, without its colours where nobody would see them; the terminal may be gone."""
    with suppress(OSError):
        click.echo(line)


def addresses(stack: Stack) -> str:
    """Return what a person wants to know once the stack is up."""
    settings = stack.settings
    rows = {
        "commands": settings.command_address,
        "queries": settings.query_address,
        "PostgreSQL": settings.database_url,
        "NATS": settings.nats_url,
        "Redis": settings.redis_url,
        "data, keys": f"{FOLDER}/",
        "a token": ".venv/bin/devstack token --scope ordering.write --scope ordering.read",
    }
    lines = [click.style("Diptych is up; Ctrl-C stops it", bold=True)]
    return "\n".join(["", *lines, *(f"  {what:11} {where}" for what, where in rows.items()), ""])


async def _keep(part: Part) -> None:
    """Start a part of the stack again whenever it dies."""
    while True:
        code = await part.child.ended()
        say(click.style(f"{part.name} died ({code}) and is started again", fg="red"))
        await asyncio.sleep(PAUSE)
        try:
            await part.start()
        except StartError as error:
            say(click.style(str(error), fg="red"))
