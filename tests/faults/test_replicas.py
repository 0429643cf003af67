"""One NATS server, and three with replicas: whatever fails, the stream has each event once, in order."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import RELAY
from runtime.jetstream import Connection, connect, read_stream_identity
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.keys import get_ring
from tests.support.harness.nats_cluster import NatsCluster
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.installation import CONTEXT, installed

FROZEN = (0.3, 4.0)
"""Seconds of a freeze: less than an election takes, and about as much."""
FAULTS = ("kill the leader", "freeze the leader", "kill a relay", "freeze a relay", "interlope")
FAULTS_OF_SEVERAL = ("kill a follower", "freeze a follower", "step down", "restart all")

pytestmark = pytest.mark.long


class Faults:
    """Faults of the cluster and of the relays; each is over when it returns."""

    def __init__(self, stack: Stack, cluster: NatsCluster, observer: Connection, dice: random.Random) -> None:
        self._stack = stack
        self._cluster = cluster
        self._observer = observer
        self._dice = dice

    async def cause(self, fault: str) -> None:
        leader = await self._cluster.find_leader(self._observer)
        others = [server for server in self._cluster.servers if server is not leader]
        follower = self._dice.choice(others or [leader])
        relay = self._dice.choice(self._stack.of(RELAY))
        match fault:
            case "kill the leader" | "kill a follower":
                server = leader if fault == "kill the leader" else follower
                await server.kill()
                await server.start()
            case "freeze the leader" | "freeze a follower":
                await self._freeze((leader if fault == "freeze the leader" else follower).child)
            case "step down":
                await self._cluster.step_down(self._observer)
            case "restart all":
                for server in self._cluster.servers:
                    await server.kill()
                for server in self._cluster.servers:
                    await server.start()
            case "kill a relay":
                await relay.child.kill()
                await relay.start(ready=False)
            case "freeze a relay":
                await self._freeze(relay.child)
            case "interlope":
                await self._interlope()

    async def _freeze(self, child: object) -> None:
        child.freeze()  # type: ignore[attr-defined]
        await asyncio.sleep(self._dice.choice(FROZEN))  # the length of the fault
        child.thaw()  # type: ignore[attr-defined]

    async def _interlope(self) -> None:
        """Publish a message that is no event; the relay passes over it."""
        identity = await read_stream_identity(self._observer.js)
        assert identity is not None
        subject = f"diptych.feed.{identity.epoch}.0.ledger.cheque.stranger"
        await self._observer.js.publish(subject, b"stranger", timeout=20)


@asynccontextmanager
async def start_stack(cluster: NatsCluster, folder: Path) -> AsyncIterator[Stack]:
    with installed(CONTEXT):
        async with cluster:
            (folder / "stack").mkdir()
            async with temporary_stack(
                folder / "stack", contexts=CONTEXT, nats_url=cluster.url, relays=2
            ) as stack:
                yield stack


@pytest.mark.parametrize(
    ("size", "sync_always"),
    [(1, False), (3, False), (3, True)],
    ids=["one server", "three servers", "three servers, always synced"],
)
async def test_faults_of_servers_and_relays_lose_and_duplicate_nothing(
    tmp_path: Path, size: int, sync_always: bool
) -> None:
    seed = secrets.randbits(32)
    dice = random.Random(seed)
    cluster = NatsCluster(tmp_path, size, sync_always)
    async with start_stack(cluster, tmp_path) as stack:
        traffic = Traffic(stack, seed)
        async with await connect(cluster.url, "observer", get_ring) as observer:
            await observer.wait_until_connected()
            await cluster.replicate(observer)
            faults = Faults(stack, cluster, observer, dice)
            async with traffic.flowing():
                chosen = FAULTS + (FAULTS_OF_SEVERAL if size > 1 else ())
                for fault in dice.sample(chosen, len(chosen)):
                    print(fault)
                    await traffic.more(10)
                    await faults.cause(fault)
                    await wait_until_published_more(observer)
            await cluster.replicate(observer)  # verify reads from any server
        await assert_consistent(stack, traffic.answers)
        await traffic.close()


async def wait_until_published_more(observer: Connection) -> None:
    """Wait until the relay goes on after a fault."""
    first: tuple[str, int] | None = None

    async def are_published() -> bool:
        nonlocal first
        try:
            identity = await read_stream_identity(observer.js)
        except Exception:  # no server leads
            return False
        if identity is None or not identity.complete:
            return False
        if first is None or first[0] != identity.epoch:
            first = (identity.epoch, identity.last_sequence)
        return identity.last_sequence >= first[1] + 10

    await until(are_published, 60)
