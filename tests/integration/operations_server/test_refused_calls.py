"""Refused calls over the API: the most frequent first, in pages that new calls do not move."""

from typing import Any

import asyncpg
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.records_pb2 import RefusedCall

from devstack.stack import Stack
from tests.support.harness.caller import Caller

INSERT = """
INSERT INTO refused_calls (recorded_at, method, reason, caller, details, peer, calls)
SELECT now() - make_interval(mins => n % 60), '/a.B/M' || n % 250, 'SCOPE_MISSING', 'caller-' || n % 7,
  json_build_object('cause', 'c'), '10.0.0.1', 1 + n % 3
FROM generate_series(1, $1) n
"""
OLD = """
INSERT INTO refused_calls (recorded_at, method, reason, details, peer)
VALUES (now() - interval '2 days', '/a.B/Old', 'UNAUTHENTICATED', '{}', '10.0.0.2')
"""
NEW = """
INSERT INTO refused_calls (method, reason, details, peer, calls)
VALUES ('/a.B/New', 'SCOPE_MISSING', '{"trace_id": "4bf9"}', '10.0.0.3', 999),
  ('/a.B/New', 'SCOPE_MISSING', '{}', '10.0.0.3', 1)
"""


async def list_all(operator: Caller, **filters: Any) -> tuple[list[RefusedCall], int]:
    entries: list[RefusedCall] = []
    pages, token = 0, ""
    while pages == 0 or token:
        page = await operator.query(protocol.ListRefusedCallsRequest(page_token=token, **filters))
        entries += page.refused_calls
        pages, token = pages + 1, page.next_page_token
    return entries, pages


def key_of(entry: RefusedCall) -> tuple[str, ...]:
    return entry.reason, entry.cause, entry.caller, entry.peer, entry.method


async def test_pages_count_each_call_once_while_new_ones_arrive(stack: Stack, operator: Caller) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(INSERT, 1_000)
    await connection.execute(OLD)
    rows = await connection.fetchval(
        "SELECT sum(calls)::int FROM refused_calls WHERE reason = 'SCOPE_MISSING'"
    )
    entries, pages = await list_all(operator, page_size=200)
    assert sum(each.calls for each in entries) == rows
    assert len({key_of(each) for each in entries}) == len(entries) > 800
    assert pages == -(-len(entries) // 200)
    order = [(-each.calls, -each.last_time.ToNanoseconds()) for each in entries]
    assert order == sorted(order)

    first = await operator.query(protocol.ListRefusedCallsRequest(page_size=200))
    await connection.execute(NEW)
    request = protocol.ListRefusedCallsRequest(page_size=200, page_token=first.next_page_token)
    second = await operator.query(request)
    assert [key_of(each) for each in second.refused_calls] == [key_of(each) for each in entries[200:400]]
    latest = await operator.query(protocol.ListRefusedCallsRequest(page_size=1))
    (new,) = latest.refused_calls
    assert (new.method, new.calls, new.trace_id) == ("/a.B/New", 1000, "4bf9")
    await connection.close()


async def test_filters_and_the_range_of_time_select_entries(stack: Stack, operator: Caller) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(INSERT, 50)
    await connection.execute(OLD)
    await connection.close()
    assert {each.caller for each in (await list_all(operator, caller="caller-3"))[0]} == {"caller-3"}
    assert (await list_all(operator, reason="UNAUTHENTICATED"))[0] == []
    request = protocol.ListRefusedCallsRequest(reason="UNAUTHENTICATED")
    request.from_time.FromSeconds(1)
    (old,) = (await operator.query(request)).refused_calls
    assert (old.method, old.caller, old.cause, old.calls, old.trace_id) == ("/a.B/Old", "", "", 1, "")


async def test_a_token_of_other_filters_is_refused(stack: Stack, operator: Caller) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(INSERT, 10)
    await connection.close()
    page = await operator.query(protocol.ListRefusedCallsRequest(page_size=1))
    request = protocol.ListRefusedCallsRequest(caller="caller-1", page_token=page.next_page_token)
    assert await operator.rejection_reason(request) == "PAGE_TOKEN_INVALID"
