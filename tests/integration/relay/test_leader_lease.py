"""A lease excludes others while its holder's session lasts, and no longer than it says."""

import asyncpg
import pytest
from sqlalchemy import text

from runtime.leader_lease import DURATION, Lease
from runtime.postgres import create_engine
from runtime.telemetry.metrics import CONNECTIONS_LOST

LEASE_OF_ANOTHER = text("""
UPDATE relay_state SET leader = 'another', lease_until = now() + make_interval(secs => :lasts)
""")


@pytest.mark.parametrize(("lasts", "acquired"), [(-1.0, True), (DURATION, False), (3 * 3600.0, True)])
async def test_a_lease_counts_for_no_longer_than_its_duration(
    database_url: str, lasts: float, acquired: bool
) -> None:
    engine = create_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(LEASE_OF_ANOTHER, {"lasts": lasts})
    lease = Lease(engine, can_lead=lambda: True)
    assert await lease.acquire() is acquired
    await lease.release()
    await engine.dispose()


async def test_a_standby_takes_over_as_soon_as_the_session_of_the_leader_ends(database_url: str) -> None:
    engine = create_engine(database_url)
    leader, standby = Lease(engine, can_lead=lambda: True), Lease(engine, can_lead=lambda: True)
    assert await leader.acquire()
    assert not await standby.acquire()
    assert await leader.acquire()
    session = await leader._session.open()
    CONNECTIONS_LOST.clear()
    owner = await asyncpg.connect(database_url)
    assert await owner.fetchval("SELECT pg_terminate_backend($1, 5000)", session.get_server_pid())
    assert await standby.acquire()
    assert not await leader.acquire()
    assert CONNECTIONS_LOST.sums == {("PostgreSQL",): 1}
    for lease in (leader, standby):
        await lease.release()
    await owner.close()
    await engine.dispose()


async def test_a_released_lease_is_free(database_url: str) -> None:
    engine = create_engine(database_url)
    leader, standby = Lease(engine, can_lead=lambda: True), Lease(engine, can_lead=lambda: True)
    assert await leader.acquire()
    await leader.release()
    assert await standby.acquire()
    await standby.release()
    await engine.dispose()
