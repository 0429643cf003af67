"""One NATS server, or several that replicate the event stream, to kill and to freeze one by one."""

from pathlib import Path
from typing import Self

import nats.errors
from nats.js.errors import NotFoundError

from contracts.streams import JETSTREAM
from devstack.servers import Nats
from devstack.tcp_ports import free_port
from runtime.jetstream import Connection, connect
from tests.support.harness.keys import get_ring
from tests.support.harness.waiting import until


class ClusteredNats(Nats):
    """One server of a cluster."""

    routes: list[int]
    number: int
    sync_always: bool

    def _command(self) -> list[str | Path]:
        config = self.folder.with_name(f"{self.folder.name}.conf")
        sync = "sync_interval: always" if self.sync_always else ""
        lines = [f"server_name: n{self.number}", f"jetstream {{ {sync} }}"]
        if len(self.routes) > 1:
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self.routes)
            listen = f"127.0.0.1:{self.routes[self.number]}"
            lines.append(f"cluster {{ name: c, listen: {listen}, routes: [{routes}] }}")
        config.write_text("\n".join(lines))
        return [*super()._command(), "-c", config]


class NatsCluster:
    """A cluster whose servers can be killed and frozen one by one.

    Args:
        folder: for their data.
        size: number of servers and of the stream's replicas.
        sync_always: whether each acknowledged message is on disk.
    """

    def __init__(self, folder: Path, size: int, sync_always: bool) -> None:
        self.size = size
        routes = [free_port() for _ in range(size)]
        self.servers = [ClusteredNats(folder / f"nats-{number}") for number in range(size)]
        for number, server in enumerate(self.servers):
            server.routes, server.number, server.sync_always = routes, number, sync_always

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    async def replicate(self, connection: Connection) -> None:
        """Give the stream a replica on each server, and wait until all of them are current."""

        async def is_replicated() -> bool:
            try:
                info = await connection.js.stream_info(JETSTREAM)
                if info.config.num_replicas != self.size:
                    await connection.js.update_stream(info.config.evolve(num_replicas=self.size))
                    return False
            except (nats.errors.Error, TimeoutError):
                return False
            replicas = info.cluster.replicas or [] if info.cluster else []
            return len(replicas) == self.size - 1 and all(replica.current for replica in replicas)

        await until(is_replicated, 60)

    async def find_leader(self, connection: Connection) -> ClusteredNats:
        """Return the server that leads the stream."""
        if self.size == 1:
            return self.servers[0]
        leader = -1

        async def is_led() -> bool:
            nonlocal leader
            try:
                info = await connection.js.stream_info(JETSTREAM)
            except (NotFoundError, nats.errors.Error, TimeoutError):
                return False
            name = info.cluster.leader if info.cluster else None
            leader = int(name.removeprefix("n")) if name else -1
            return leader >= 0

        await until(is_led, 60)
        return self.servers[leader]

    async def step_down(self, connection: Connection) -> None:
        await connection.client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{JETSTREAM}", b"", timeout=5)

    async def __aenter__(self) -> Self:
        for server in self.servers:
            await server.start()
        async with await connect(self.url, "test", get_ring) as connection:
            await connection.wait_until_connected()

            async def has_leader() -> bool:
                try:
                    await connection.js.account_info()
                except (nats.errors.Error, TimeoutError):
                    return False
                return True

            await until(has_leader, 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            server.child.thaw()
            await server.stop()
