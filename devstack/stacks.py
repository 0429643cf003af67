"""The two kinds of stack.

The local one is for people: known ports, data that stays, and the user's own servers where settings name
them. A throw-away one is for tests, demo and bench: free ports, an empty folder, deaf to DIPTYCH_* variables.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from devstack import folder_lock, tokens
from devstack.child import Output
from devstack.ports import free_port
from devstack.servers import Nats, Postgres, Server, Valkey
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, KINDS, PROCESS_MANAGER, PROJECTOR, QUERY_SERVER, RELAY
from runtime.process.settings import Settings


def local(folder: Path, chosen: Settings, output: Callable[[str], Output]) -> Stack:
    """Return the stack of `make up`, with one process of each kind.

    Args:
        folder: keeps its data and keys.
        chosen: the user's settings.
        output: where the lines of the process of this name go.

    Raises:
        StartError: a stack is up in this folder.
    """
    held = folder_lock.hold(folder)
    jwks = folder.absolute() / "jwks.json"
    if "jwks" not in chosen.model_fields_set:
        tokens.make_keys(jwks)
    defaults = {
        "reflection": True,
        "log_format": "console",
        "jwks": str(jwks),
        "process_manager_token": str(folder.absolute() / "process-manager.token"),
    }
    unset = {name: value for name, value in defaults.items() if name not in chosen.model_fields_set}
    settings = chosen.model_copy(update=unset)
    if {"jwks", "process_manager_token"} <= unset.keys():
        tokens.keep_for_process_manager(settings)
    servers: dict[str, Server] = {
        "database_url": Postgres(folder / "postgres", urlsplit(settings.database_url).port, [held]),
        "nats_url": Nats(folder / "nats", urlsplit(settings.nats_url).port, [held]),
        "redis_url": Valkey(folder / "redis", urlsplit(settings.redis_url).port, [held]),
    }
    ours = {name: server for name, server in servers.items() if name not in chosen.model_fields_set}
    stack = Stack(settings, ours, {}, output, [held])
    for kind in KINDS:
        stack.add(kind)
    return stack


def throwaway(
    folder: Path,
    *,
    database_url: str | None = None,
    nats_url: str | None = None,
    redis_url: str | None = None,
    command_servers: int = 1,
    relays: int = 1,
    projectors: int = 1,
    query_servers: int = 1,
    process_managers: int = 0,
    durable: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Stack:
    """Return a stack on free ports; the lines of its processes go to `<name>.log` in the folder.

    Args:
        folder: for its data, logs and keys; empty.
        database_url: a PostgreSQL that runs already; the stack has its own where it is None.
        nats_url: likewise.
        redis_url: likewise.
        command_servers: how many of them.
        relays: likewise.
        projectors: likewise.
        query_servers: likewise.
        process_managers: likewise.
        durable: whether what its PostgreSQL has committed outlives a crash of the machine.
        environment: further variables for all processes.
    """
    servers: dict[str, Server] = {}
    if database_url is None:
        servers["database_url"] = Postgres(folder / "postgres", durable=durable)
    if nats_url is None:
        servers["nats_url"] = Nats(folder / "nats")
    if redis_url is None:
        servers["redis_url"] = Valkey(folder / "redis")
    tokens.make_keys(folder / "jwks.json")
    given = {"database_url": database_url, "nats_url": nats_url, "redis_url": redis_url}
    settings = Settings.model_construct(
        None,
        jwks=str(folder / "jwks.json"),
        process_manager_token=str(folder / "process-manager.token"),
        reflection=True,
        **{kind.address: f"127.0.0.1:{free_port()}" for kind in KINDS},
        **{name: url or servers[name].url for name, url in given.items()},
    )
    tokens.keep_for_process_manager(settings)
    stack = Stack(settings, servers, environment or {}, lambda name: folder / f"{name}.log")
    counts = {
        COMMAND_SERVER: command_servers,
        RELAY: relays,
        PROJECTOR: projectors,
        QUERY_SERVER: query_servers,
        PROCESS_MANAGER: process_managers,
    }
    for kind, count in counts.items():
        for _ in range(count):
            stack.add(kind)
    return stack
