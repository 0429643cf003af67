"""Explanations are bounded whatever the history: many events of a stream, many rejected commands."""

import asyncpg
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.explanation_pb2 import Explanation

from devstack.stack import Stack
from tests.support.harness.caller import Caller

STREAM = "banking.account.long"
PLANT = """
WITH stream AS (
  INSERT INTO streams (id, type, version, updated_at, state_version, fingerprint)
  VALUES ('banking.account.long', 'banking.account', $1, now(), 0, '')
), request AS (
  SELECT n, gen_random_uuid() AS id, now() - make_interval(secs => $1 - n) AS at FROM generate_series(1, $1) n
), audited AS (
  INSERT INTO audit (recorded_at, caller, request_id, type, outcome, stream, duration_us)
  SELECT at, 'alice', id, 'diptych.banking.v1.Deposit', 'ACCEPTED', 'banking.account.long', 1000 FROM request
), answered AS (
  INSERT INTO requests (caller, request_id, type, hash, outcome, receipt, recorded_at)
  SELECT 'alice', id, 'diptych.banking.v1.Deposit', '', 'ACCEPTED',
    json_build_object('banking.account.long', n), at FROM request
), rejected AS (
  INSERT INTO audit (recorded_at, caller, request_id, type, outcome, stream, duration_us)
  SELECT at + interval '1 ms', 'bob', gen_random_uuid(), 'diptych.banking.v1.Withdraw', 'FUNDS_INSUFFICIENT',
    'banking.account.long', 1000 FROM request WHERE n % 100 = 0
)
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
SELECT 'banking.account.long', n, 'diptych.banking.v1.MoneyDeposited', '',
  json_build_object('actor', 'alice', 'command', 'diptych.banking.v1.Deposit', 'causation_id', id), at
FROM request
"""


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_an_aggregate_with_many_events_is_explained_by_its_first_and_latest_ones(
    stack: Stack, operator: Caller, count: int
) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(PLANT, count)
    await connection.close()
    (explained,) = (await operator.query(protocol.ExplainRequest(subject="long"))).explanations
    versions = [
        int(entry.reference.partition("@")[2])
        for entry in explained.entries
        if entry.kind == Explanation.KIND_EVENT and "@" in entry.reference
    ]
    assert versions == [*range(1, 21), *range(count - 99, count + 1)]
    assert explained.omitted_entry_count == count - 120
    (gap,) = [entry.text for entry in explained.entries if "are omitted" in entry.text]
    assert gap == (
        f"{count - 120:,} events of account long are omitted, versions 21 to {count - 100};"
        f" diptych events {STREAM} lists them"
    )
    rejected = [entry for entry in explained.entries if entry.kind == Explanation.KIND_REJECTED]
    assert len([entry for entry in rejected if entry.reference]) == 50, "the latest ones"
    assert "earlier rejected commands" in rejected[0].text
    (earlier,) = (await operator.query(protocol.ExplainRequest(subject=STREAM, version=500))).explanations
    assert "version 500 of account long" in earlier.summary
