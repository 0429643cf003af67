"""`make up`: the local stack in the foreground until Ctrl-C; failed servers and processes are restarted."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import click

from devstack import stack_kinds, tokens
from devstack.child import Output
from devstack.foreground import own_foreground
from devstack.observe.observation import Observation, list_targets
from devstack.processes import Process
from devstack.servers import Postgres, Server
from devstack.servers.tls_stores import TLS_ADVICE
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


def run(settings: Settings, observed: bool = False, tls: bool = False) -> None:
    """Run the local stack until Ctrl-C, SIGTERM, or the end of the terminal.

    Args:
        settings: the user's own; servers that they name are used, not started.
        observed: whether Prometheus, Alertmanager and a trace viewer run beside it.
        tls: whether processes and NATS use TLS.

    Raises:
        StartError: a port is taken, or something does not start.
    """
    with own_foreground():
        asyncio.run(_run(settings, observed, tls))


async def _run(settings: Settings, observed: bool, tls: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    observation = Observation(FOLDER / "observe", print_line) if observed else None
    starting = asyncio.create_task(_start(settings, observation, tls))
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.is_set():
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return
    stack = await starting
    observers = observation.servers if observation else []
    print_line(describe(stack, observers))
    parts: list[Part] = [*stack.servers.values(), *stack.processes, *observers]
    supervisors = [asyncio.create_task(_supervise(part)) for part in parts]
    renewal = tokens.keep_renewed(stack.write_tokens, tokens.file_lifetime(stack.settings), _print_error)
    supervisors.append(asyncio.create_task(renewal))
    await waiting
    print_line("Stopping")
    for supervisor in supervisors:
        supervisor.cancel()
    if observation is not None:
        await observation.stop_metrics()
    await stack.stop()
    if observation is not None:
        await observation.stop()
    print_line("Stopped")


async def _start(settings: Settings, observation: Observation | None, tls: bool) -> Stack:
    """Start the stack and its observers; after a failure nothing keeps running."""
    if observation is None:
        stack = stack_kinds.local_stack(FOLDER, settings, Console().output, tls=tls)
        await stack.start()
        return stack
    variables = await observation.find_traces()
    stack = stack_kinds.local_stack(FOLDER, settings, Console().output, variables, metrics=True, tls=tls)
    try:
        await observation.start_traces(stack.keep)
        await stack.start()
        await observation.start_metrics(list_targets(stack), stack.keep)
    except BaseException:
        await observation.stop()
        await stack.stop()
        raise
    return stack


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


def _print_error(text: str) -> None:
    print_line(click.style(text, fg="red"))


def describe(stack: Stack, observers: Sequence[Server] = ()) -> str:
    """Return the addresses of a running stack and of its observers, and how to get a token."""
    settings = stack.settings
    rows = {
        "commands": settings.command_address,
        "queries": settings.query_address,
        "operations": settings.operations_address,
        "PostgreSQL": settings.database_url,
        "NATS": settings.nats_url,
        "Redis": settings.redis_url,
        **{server.name: server.url for server in observers},
        "data, keys": f"{FOLDER}/",
        **({"TLS": f"export DIPTYCH_TLS_CA={settings.tls_ca}"} if settings.tls_ca else {}),
        "token": ".venv/bin/devstack token --scope ordering.place --scope ordering.own --subject alice",
    }
    title = click.style("Diptych is up; Ctrl-C stops it", bold=True)
    rows |= {f"{name} in the clear": advice for name, advice in _list_plain(stack).items()}
    return "\n".join(["", title, *(f"  {subject:12} {value}" for subject, value in rows.items()), ""])


def _list_plain(stack: Stack) -> dict[str, str]:
    """Return the stores of a stack with TLS that have none, with what to install."""
    if not stack.settings.tls_ca:
        return {}
    plain = {server.name for server in stack.servers.values() if server.url.startswith("redis:")}
    plain |= {server.name for server in stack.servers.values() if type(server) is Postgres}
    return {name: advice for name, advice in TLS_ADVICE.items() if name in plain}


async def _supervise(part: Part) -> None:
    """Restart a server or process whenever it ends."""
    while True:
        code = await part.child.wait_ended()
        print_line(click.style(f"{part.name} ended with exit code {code}; restarting", fg="red"))
        await asyncio.sleep(RESTART_PAUSE)
        try:
            await part.start()
        except StartError as error:
            _print_error(str(error))
