"""Operators' acts are kept as long as the audit."""

from tests.integration.housekeeping.conftest import House

INSERT = """
INSERT INTO operator_acts (recorded_at, subject, act, target, request, reason)
SELECT now() - make_interval(days => days), 'operator', 'RetrySaga', 's', '{}', 'test'
FROM unnest(ARRAY[1, 9, 11, 400]) days
"""


async def test_acts_older_than_the_retention_of_the_audit_are_removed(house: House) -> None:
    await house.connection.execute(INSERT)
    assert await house.keep() == 0
    assert await house.count("operator_acts") == 4
    assert await house.keep(dry_run=True, keep_audit="10d") == 0
    assert house.line_of("operator_acts").startswith("operator_acts   2 acts to remove, kept since ")
    assert await house.count("operator_acts") == 4
    assert await house.keep(keep_audit="10d") == 0
    assert await house.count("operator_acts") == 2
