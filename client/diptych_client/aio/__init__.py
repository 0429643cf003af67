"""The client for asyncio: the same as `diptych_client`, on a channel of grpc.aio."""

from diptych_client.aio.connection import Connection, connect
from diptych_client.aio.watch import Watch

__all__ = ["Connection", "Watch", "connect"]
