"""GetOrder and PlaceOrder with TLS and without, on both servers, in turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from bench.comparison import Subject
from bench.environment import H2CORN, Environment
from bench.services import Services, name_on_h2corn
from devstack.processes import Process
from devstack.stack_tls import StackTls
from operations.processes import COMMAND_SERVER, QUERY_SERVER, ProcessKind


def name_by_tls(name: str) -> str:
    """Return the name of a subject that is called by TLS."""
    return f"{name} by TLS"


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield queries and commands on both servers, each in the clear and by TLS."""
    tls = await asyncio.to_thread(StackTls.provision, environment.folder / "certificates")
    services = Services(environment)
    calls = {
        "GetOrder": (QUERY_SERVER, services.get_orders),
        "PlaceOrder": (COMMAND_SERVER, services.place_orders),
    }
    subjects, processes = [], []
    for name, (kind, call) in calls.items():
        subjects.append(Subject(name, call))
        for title, server in _add_servers(environment, kind, tls).items():
            subjects.append(Subject(title.format(name), partial(call, server)))
            processes.append(server)
    await asyncio.gather(*(process.start() for process in processes))
    try:
        yield subjects
    finally:
        await asyncio.gather(*(process.stop() for process in processes))


def _add_servers(environment: Environment, kind: ProcessKind, tls: StackTls) -> dict[str, Process]:
    """Add the servers beside the stack's own, which is a grpc.aio without TLS."""
    variables = {**tls.kind_environment[kind], "DIPTYCH_TLS_CA": str(tls.authority)}
    add = partial(environment.stack.add, kind, ())
    servers = {
        name_by_tls("{}"): add(variables),
        name_on_h2corn("{}"): add(H2CORN),
        name_by_tls(name_on_h2corn("{}")): add({**variables, **H2CORN}),
    }
    authority: Path = tls.authority
    for title, server in servers.items():
        if title.endswith(name_by_tls("")):
            environment.authorities[server.address] = authority
    return servers
