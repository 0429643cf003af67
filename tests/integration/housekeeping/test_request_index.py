"""The index of requests goes with the months of the audit, and what the audit still has stays found."""

from tests.integration.housekeeping.conftest import House

ADD_SEGMENTS = """
WITH segments AS (
  INSERT INTO request_segments (after, until, requests)
  SELECT date_trunc('hour', now()) - make_interval(days => n + 1),
    date_trunc('hour', now()) - make_interval(days => n), 1
  FROM generate_series(0, 399) n RETURNING until
)
INSERT INTO request_terms SELECT term, until FROM segments, generate_series(1, 3) term
"""
MONTH = "date_trunc('month', (now() - interval '60 days') AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
EXPECTED = f"SELECT count(*) FROM request_segments WHERE until >= {MONTH}"
STRAY_TERMS = "SELECT count(*) FROM request_terms WHERE segment NOT IN (SELECT until FROM request_segments)"


async def test_segments_before_the_first_kept_month_are_removed_with_their_terms(house: House) -> None:
    await house.connection.execute(ADD_SEGMENTS)
    assert await house.keep() == 0
    assert await house.count("request_segments") == 400
    kept = await house.connection.fetchval(EXPECTED)
    assert await house.keep(dry_run=True, keep_audit="60d") == 0
    assert house.line_of("request_index").startswith(f"request_index   {400 - kept} segments to remove")
    assert await house.count("request_segments") == 400
    assert await house.keep(keep_audit="60d") == 0
    assert 0 < kept == await house.count("request_segments")
    assert await house.count("request_terms") == 3 * kept
    assert await house.connection.fetchval(STRAY_TERMS) == 0
