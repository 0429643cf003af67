"""A lease excludes others for its duration, and no longer if PostgreSQL's clock was ahead."""

import pytest
from sqlalchemy import text

from runtime.leader_lease import DURATION, Lease
from runtime.postgres import create_engine

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
    assert await Lease(engine, can_lead=lambda: True).acquire() is acquired
    await engine.dispose()
