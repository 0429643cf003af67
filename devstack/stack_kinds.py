"""The two kinds of stack.

The local one is for people: fixed ports, data that is kept, and the user's own servers if settings name them.
A temporary one is for tests, demo and bench: free ports, an empty folder, no DIPTYCH_* variables but
DIPTYCH_GRPC_SERVER, so that all tests can run on either server.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from devstack import folder_lock, tokens
from devstack.child import Output
from devstack.servers import Nats, Postgres, Server, Valkey
from devstack.stack import Stack, variable
from devstack.stack_tls import StackTls
from devstack.store_users import DatabaseUsers, StoreUsers
from devstack.tcp_ports import free_port
from operations import keys as key_ring
from operations.processes import (
    COMMAND_SERVER,
    KINDS,
    OPERATIONS_SERVER,
    PROCESS_MANAGER,
    PROJECTOR,
    QUERY_SERVER,
    RELAY,
    ProcessKind,
)
from runtime.process.settings import Settings

KindEnvironment = Mapping[ProcessKind, Mapping[str, str]]


def local_stack(
    folder: Path,
    user_settings: Settings,
    output: Callable[[str], Output],
    environment: Mapping[str, str] | None = None,
    *,
    metrics: bool = False,
    tls: bool = False,
) -> Stack:
    """Return the stack of `make up`, with one process of each kind.

    Args:
        folder: for its data and keys.
        user_settings: the settings from the user's environment.
        output: returns the receiver of the lines of the process with this name.
        environment: further variables for all processes.
        metrics: whether the processes serve their metrics.
        tls: whether its processes and NATS use TLS.

    Raises:
        StartError: a stack runs in this folder.
    """
    lock = folder_lock.acquire(folder)
    jwks = folder.absolute() / "jwks.json"
    if "jwks" not in user_settings.model_fields_set:
        tokens.make_keys(jwks)
    keys = folder.absolute() / "keys.json"
    if "keys" not in user_settings.model_fields_set:
        key_ring.ensure(keys)
    defaults = {
        "reflection": True,
        "log_format": "console",
        "jwks": str(jwks),
        "keys": str(keys),
        "process_manager_token": str(folder.absolute() / "process-manager.token"),
        "operations_token": str(folder.absolute() / "operations.token"),
        "search_folder": str(folder.absolute() / "search"),
        "allow_privileged_database_user": True,
    }
    certificates = StackTls.provision(folder / "certificates") if tls else None
    if certificates is not None:
        defaults |= certificates.settings
    applied_defaults = {
        name: value for name, value in defaults.items() if name not in user_settings.model_fields_set
    }
    settings = user_settings.model_copy(update=applied_defaults)

    def write_tokens() -> None:
        if {"jwks", "process_manager_token"} <= applied_defaults.keys():
            tokens.write_process_manager_token(settings)
        if {"jwks", "operations_token"} <= applied_defaults.keys():
            tokens.write_operations_token(settings)

    write_tokens()
    users = StoreUsers(folder)
    servers = _create_servers(folder, settings, lock, certificates, users)
    own_servers = {
        name: server for name, server in servers.items() if name not in user_settings.model_fields_set
    }
    urls = {name: server.url for name, server in own_servers.items()}
    named = {**(urls if certificates else {}), **users.name_administrators(urls)}
    database = own_servers.get("database_url")
    if isinstance(database, Postgres):
        named["database_url"] = database.public_url
    settings = settings.model_copy(update=named)
    logins = DatabaseUsers(folder / "database-users", settings.database_url) if database else None
    kinds = _join(
        certificates.kind_environment if certificates else {},
        users.list_variables(urls),
        logins.variables if logins else {},
    )
    stack = Stack(settings, own_servers, environment or {}, output, [lock], metrics, kinds)
    stack.make_database_users = logins.make if logins else None
    stack.write_tokens = write_tokens
    for kind in KINDS:
        stack.add(kind)
    return stack


def _join(*parts: KindEnvironment) -> KindEnvironment:
    """Return the variables of each kind; those of later parts take precedence."""
    return {
        kind: {name: value for part in parts for name, value in part.get(kind, {}).items()} for kind in KINDS
    }


def _create_servers(
    folder: Path, settings: Settings, lock: int, certificates: StackTls | None, users: StoreUsers
) -> dict[str, Server]:
    """Return the servers at the ports of the settings; with certificates those have TLS that can."""
    ports = {
        name: urlsplit(getattr(settings, name)).port for name in ("database_url", "nats_url", "redis_url")
    }
    if certificates is None:
        return {
            "database_url": Postgres(folder / "postgres", ports["database_url"], [lock]),
            "nats_url": Nats(
                folder / "nats", ports["nats_url"], [lock], configuration=users.nats_configuration
            ),
            "redis_url": Valkey(folder / "redis", ports["redis_url"], [lock], users=users.redis_users),
        }
    return {
        "database_url": certificates.create_postgresql(folder / "postgres", ports["database_url"], [lock]),
        "nats_url": Nats(
            folder / "nats",
            ports["nats_url"],
            [lock],
            tls=certificates.get_store("nats"),
            configuration=users.nats_configuration,
        ),
        "redis_url": certificates.create_redis(folder, ports["redis_url"], [lock], users.redis_users),
    }


def temporary_stack(
    folder: Path,
    *,
    contexts: str = "",
    database_url: str | None = None,
    nats_url: str | None = None,
    redis_url: str | None = None,
    command_servers: int = 1,
    relays: int = 1,
    projectors: int = 1,
    query_servers: int = 1,
    process_managers: int = 0,
    operations_servers: int = 0,
    durable: bool = False,
    environment: Mapping[str, str] | None = None,
    output: Callable[[str], Output] | None = None,
    metrics: bool = False,
    kind_environment: Mapping[ProcessKind, Mapping[str, str]] | None = None,
    tls: bool = False,
) -> Stack:
    """Return a stack on free ports.

    Args:
        folder: an empty folder for its data, logs and keys.
        contexts: the setting of this name.
        database_url: a running PostgreSQL; None for one of its own.
        nats_url: a running NATS; None for one of its own.
        redis_url: a running Redis; None for one of its own.
        command_servers: their number.
        relays: their number.
        projectors: their number.
        query_servers: their number.
        process_managers: their number.
        operations_servers: their number.
        durable: whether commits of its PostgreSQL survive a crash of the machine.
        environment: further variables for all processes.
        output: returns the receiver of the lines of the process with this name; None for `<name>.log` in the
            folder.
        metrics: whether the processes serve their metrics.
        kind_environment: variables of each kind of process; `environment` takes precedence over them.
        tls: whether its processes, and a NATS of its own, use TLS.
    """
    certificates = StackTls.provision(folder / "certificates") if tls else None
    users = StoreUsers(folder)
    servers: dict[str, Server] = {}
    if database_url is None:
        servers["database_url"] = Postgres(folder / "postgres", durable=durable)
    if nats_url is None:
        nats_tls = certificates.get_store("nats") if certificates else None
        servers["nats_url"] = Nats(folder / "nats", tls=nats_tls, configuration=users.nats_configuration)
    if redis_url is None:
        servers["redis_url"] = Valkey(folder / "redis", users=users.redis_users)
    own_urls = {name: server.url for name, server in servers.items()}
    given_urls = {"database_url": database_url, "nats_url": nats_url, "redis_url": redis_url}
    urls = {**{name: url for name, url in given_urls.items() if url}, **own_urls}
    urls |= users.name_administrators(own_urls)
    if redis_url is None:
        urls["redis_url"] = users.read_redis_url(own_urls["redis_url"])
    tokens.make_keys(folder / "jwks.json")
    key_ring.ensure(folder / "keys.json")
    settings = Settings.model_construct(
        None,
        contexts=contexts,
        jwks=str(folder / "jwks.json"),
        keys=str(folder / "keys.json"),
        process_manager_token=str(folder / "process-manager.token"),
        operations_token=str(folder / "operations.token"),
        reflection=True,
        allow_privileged_database_user=True,
        grpc_server=os.environ.get(variable("grpc_server"), "grpc.aio"),
        **{kind.address: f"127.0.0.1:{free_port()}" for kind in KINDS},
        **(certificates.settings if certificates else {}),
        **urls,
    )
    tokens.write_process_manager_token(settings)
    tokens.write_operations_token(settings)
    logs = output or (lambda name: folder / f"{name}.log")
    logins = None
    if database_url is None:
        logins = DatabaseUsers(folder / "database-users", settings.database_url)
    kinds = _join(
        certificates.kind_environment if certificates else {},
        users.list_variables(own_urls),
        logins.variables if logins else {},
        kind_environment or {},
    )
    stack = Stack(settings, servers, environment or {}, logs, metrics=metrics, kind_environment=kinds)
    stack.make_database_users = logins.make if logins else None
    counts = {
        COMMAND_SERVER: command_servers,
        RELAY: relays,
        PROJECTOR: projectors,
        QUERY_SERVER: query_servers,
        PROCESS_MANAGER: process_managers,
        OPERATIONS_SERVER: operations_servers,
    }
    for kind, count in counts.items():
        for _ in range(count):
            stack.add(kind)
    return stack
