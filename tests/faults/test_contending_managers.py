"""Two managers under load are killed and frozen, and so are PostgreSQL and the command server.

Each saga's history is then one that a single manager could have made.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER
from tests.support.harness.caller import Caller
from tests.support.harness.invariants import verify_stack
from tests.support.harness.trade import SCOPES, Trade
from tests.support.harness.waiting import until

pytestmark = pytest.mark.long
CALLERS = 4
RECOVERY = 60.0
"""Seconds after the last fault in which all orders end."""
OPEN = """
SELECT count(*) FROM sagas g WHERE saga = 'fulfilment.fulfilment' AND (status NOT IN ('CONFIRMED')
OR EXISTS (SELECT FROM saga_steps s WHERE s.saga = g.saga AND s.id = g.id AND s.outcome IS NULL))
"""
LEFT = """
SELECT g.status, g.waiting_for, g.blocked_reason, s.step, s.outcome, s.tries, s.error, s.due_at - now(),
  g.version, count(*)
FROM sagas g LEFT JOIN saga_steps s ON s.saga = g.saga AND s.id = g.id AND s.outcome IS DISTINCT FROM 'OK'
WHERE g.saga = 'fulfilment.fulfilment' AND (g.status <> 'CONFIRMED' OR s.step IS NOT NULL)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
"""
"""The sagas that have not ended, or have steps without an answer, and why."""
REPEATED = """
SELECT saga, id, step FROM saga_steps GROUP BY 1, 2, 3 HAVING count(*) > 1 OR count(outcome) < 1
"""
GAPS = """
SELECT saga, id FROM saga_steps GROUP BY 1, 2
HAVING count(DISTINCT number) < count(*) OR max(number) > count(*)
"""
"""Sagas whose steps are not numbered from 1 on, each number once: a reaction was lost or came twice."""
UNKNOWN_REQUESTS = """
SELECT request_id FROM saga_steps s WHERE method LIKE '%CommandService%'
AND NOT EXISTS (SELECT FROM requests r WHERE r.request_id = s.request_id)
"""


@pytest.fixture
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("managers")
    async with temporary_stack(folder, command_servers=1, process_managers=2) as stack:
        yield stack


class CheckpointWatch:
    """Reads the checkpoints again and again: none goes back."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._sequences: dict[tuple[str, str, int], int] = {}
        self.readings = 0

    async def run(self) -> None:
        while True:
            with suppress(
                OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
            ):
                await self._read_on()
            await asyncio.sleep(0.1)

    async def _read_on(self) -> None:
        connection = await asyncpg.connect(self._database_url, timeout=5, command_timeout=5)
        try:
            while True:
                for saga, type_, partition, sequence in await connection.fetch(
                    "SELECT saga, stream_type, partition, sequence FROM saga_checkpoints"
                ):
                    key = saga, type_, partition
                    assert sequence >= self._sequences.get(key, 0), f"the checkpoint of {key} went back"
                    self._sequences[key] = sequence
                self.readings += 1
                await asyncio.sleep(0.02)
        finally:
            connection.terminate()


class Faults:
    """Kills and freezes one process after the other.

    Args:
        stack: its processes.
        chance: decides.
    """

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self._stack = stack
        self._chance = chance
        self.happened = dict.fromkeys(
            ("manager killed", "manager frozen", "server killed", "postgres frozen", "postgres killed"), 0
        )

    async def run(self, count: int) -> None:
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "manager killed": self._kill_manager,
            "manager frozen": self._freeze_manager,
            "server killed": self._kill_server,
            "postgres frozen": self._freeze_postgres,
            "postgres killed": self._kill_postgres,
        }
        kinds = [*faults, *self._chance.choices(list(faults), [4, 4, 2, 1, 1], k=count - len(faults))]
        self._chance.shuffle(kinds)
        for kind in kinds:
            await asyncio.sleep(self._chance.uniform(0.2, 1.2))  # the moment of the fault, not a wait
            await faults[kind]()
            self.happened[kind] += 1

    async def _kill_manager(self) -> None:
        victim = self._chance.choice(self._stack.of(PROCESS_MANAGER))
        await victim.kill()
        await asyncio.sleep(self._chance.uniform(0.0, 2.0))  # its absence
        await victim.start()

    async def _freeze_manager(self) -> None:
        victim = self._chance.choice(self._stack.of(PROCESS_MANAGER))
        victim.child.freeze()
        await asyncio.sleep(self._chance.uniform(0.5, 4.0))  # its absence, with and without its leases
        victim.child.thaw()

    async def _kill_server(self) -> None:
        (victim,) = self._stack.of(COMMAND_SERVER)
        await victim.kill()
        await victim.start()

    async def _freeze_postgres(self) -> None:
        server = self._stack.servers["database_url"]
        server.child.freeze()
        await asyncio.sleep(self._chance.uniform(0.5, 2.0))  # its absence
        server.child.thaw()

    async def _kill_postgres(self) -> None:
        server = self._stack.servers["database_url"]
        await server.kill()
        await server.start()


@pytest.mark.parametrize("faults", [14])
async def test_sagas_of_two_managers_under_faults_have_the_history_of_one(stack: Stack, faults: int) -> None:
    chance = random.Random(seed := secrets.randbits(32))
    print(f"seed {seed}")
    caller = Caller(stack, *SCOPES)
    trade, orders = Trade(caller), list[str]()
    sku, account = await trade.create_product(100_000), await trade.open_account(1_000_000)
    watch, done = CheckpointWatch(stack.settings.database_url), asyncio.Event()

    async def place() -> None:
        while not done.is_set():
            orders.append(await trade.place_order(sku, account))
            await asyncio.sleep(0.2)  # fewer than a slow machine confirms

    watching = asyncio.create_task(watch.run())
    callers = [asyncio.create_task(place()) for _ in range(CALLERS)]
    injected = Faults(stack, chance)
    await injected.run(faults)
    done.set()
    await asyncio.gather(*callers)
    connection = await asyncpg.connect(stack.settings.database_url)

    async def all_are_confirmed() -> bool:
        known = await connection.fetchval("SELECT count(*) FROM sagas WHERE saga = 'fulfilment.fulfilment'")
        return bool(known >= len(orders) and not await connection.fetchval(OPEN))

    try:
        await until(all_are_confirmed, RECOVERY)
    except AssertionError:
        raise AssertionError([*map(tuple, await connection.fetch(LEFT))]) from None
    assert not watching.done(), watching
    watching.cancel()
    print(f"{len(orders)} orders, {watch.readings} readings, {injected.happened}")
    for check in (REPEATED, GAPS, UNKNOWN_REQUESTS):
        assert await connection.fetch(check) == []
    await connection.close()
    await caller.close()
    assert all(injected.happened.values())
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
