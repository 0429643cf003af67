"""PostgreSQL, NATS and Valkey on this machine, from wheels: nothing to install, a second to start."""

from devstack.servers.nats import Nats
from devstack.servers.postgres import Postgres
from devstack.servers.server import Server
from devstack.servers.valkey import Valkey

__all__ = ["Nats", "Postgres", "Server", "Valkey"]
