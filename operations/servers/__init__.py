"""PostgreSQL, NATS and Valkey on this machine, from wheels: nothing to install, a second to start."""

from operations.servers.nats import Nats
from operations.servers.postgres import Postgres
from operations.servers.server import Server
from operations.servers.valkey import Valkey

__all__ = ["Nats", "Postgres", "Server", "Valkey"]
