"""Dead letters of sagas over the API: a retry delivers their events, and a skip steps over them."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.ordering.v1 import events_pb2 as v1
from diptych.ordering.v2 import events_pb2 as v2
from msgspec.structs import replace

from contracts import streams
from contracts.envelope import RecordedEvent
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from process_manager.postgres.store import SagaStore
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.harness.caller import Caller
from tests.support.harness.outbox import count_pending
from tests.support.harness.saga_run import SagaRun, recorded_as
from tests.support.harness.waiting import until

RECORD = """
WITH added AS (
  INSERT INTO events (stream, version, type, data, metadata, recorded_at)
  VALUES ($1, $2, $3, $4, '{}', now()) RETURNING position
)
INSERT INTO outbox (position) SELECT position FROM added
"""
RETRIED, SKIPPED = [id_ for n in range(100) if streams.partition(id_ := f"i-{n}") == 0][:2]  # as in a SagaRun


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Stack]:
    async with temporary_stack(
        tmp_path,
        database_url=database_url,
        nats_url=nats_url,
        redis_url=redis_url,
        command_servers=0,
        projectors=0,
        query_servers=0,
        operations_servers=1,
    ) as stack:
        yield stack


@pytest.fixture
async def run(stack: Stack) -> AsyncIterator[SagaRun]:
    """The engine of a release that cannot read some events."""
    store = SagaStore(stack.settings.database_url)
    yield SagaRun(store, FULFILMENT)
    await store.close()


def make_order(id_: str) -> list[RecordedEvent]:
    """Return the events of an order: placed, held, confirmed."""
    messages = v2.OrderPlaced(order_id=id_, customer_id=id_), v1.OrderHeld(), v1.OrderConfirmed(order_id=id_)
    stream = f"ordering.order.{id_}"
    return [recorded_as(stream, message, version) for version, message in enumerate(messages, 1)]


def make_assessments(id_: str) -> list[RecordedEvent]:
    """Return two assessments of an order, which are events of its customer."""
    message = v1.OrderAssessed(order_id=id_, customer_id=id_, order_version=1)
    return [recorded_as(f"ordering.customer_activity.{id_}", message, version) for version in (1, 2)]


def break_(event: RecordedEvent) -> RecordedEvent:
    return replace(event, data=b"\xff\xff")


async def publish(stack: Stack, events: Sequence[RecordedEvent]) -> None:
    """Record events, and wait until the relay has published them."""
    connection = await asyncpg.connect(stack.settings.database_url)
    for event in events:
        await connection.execute(RECORD, event.stream, event.version, event.type, event.data)
    await connection.close()

    async def are_published() -> bool:
        return await count_pending(stack) == 0

    await until(are_published)


async def list_letters(operator: Caller) -> set[tuple[str, str, int]]:
    request = protocol.ListDeadLettersRequest(saga=FULFILMENT.name)
    return {(each.id, each.stream, each.version) for each in (await operator.query(request)).dead_letters}


async def read_versions(run: SagaRun, id_: str) -> tuple[int, Any, str]:
    """Return the versions of an instance in the streams that it follows, and why it is blocked."""
    row = (await run.read_sagas())[id_]
    others = {name: position["version"] for name, position in row.other_streams.items()}
    return row.version, others, row.blocked_reason


async def test_events_that_a_saga_failed_on_are_delivered_again_or_skipped(
    stack: Stack, operator: Caller, run: SagaRun
) -> None:
    mended, broken = make_order(RETRIED), make_order(SKIPPED)
    broken[1] = break_(broken[1])
    for placed, held, confirmed in (mended, broken):
        await run.deliver(placed, break_(held), confirmed)
    await publish(stack, [*mended, *broken])
    letters = {(id_, f"ordering.order.{id_}", 2) for id_ in (RETRIED, SKIPPED)}
    assert await list_letters(operator) == letters

    retry = protocol.RetryDeadLettersRequest(saga=FULFILMENT.name, reason="mended")
    response = await operator.query(retry)
    assert (response.retried, len(response.refused)) == (2, 0)
    assert await list_letters(operator) == {(SKIPPED, f"ordering.order.{SKIPPED}", 2)}
    assert await read_versions(run, RETRIED) == (3, {}, "")
    assert (await read_versions(run, SKIPPED))[0] == 1

    skip = protocol.SkipDeadLetterRequest(saga=FULFILMENT.name, id=SKIPPED, version=3, reason="void")
    assert await operator.rejection_reason(skip) == "DEAD_LETTER_AT_OTHER_VERSION"
    skip.version = 2
    assert (await operator.query(skip)).dead_letter.version == 2
    assert await list_letters(operator) == set()
    assert await read_versions(run, SKIPPED) == (3, {}, "")
    assert (await run.read_sagas())[SKIPPED].state["order_status"] == "CONFIRMED"
    assert await operator.rejection_reason(skip) == "DEAD_LETTER_NOT_FOUND"


async def test_a_parked_stream_is_delivered_again_or_goes_on_behind_a_skipped_event(
    stack: Stack, operator: Caller, run: SagaRun
) -> None:
    mended, broken = make_assessments(RETRIED), make_assessments(SKIPPED)
    broken[0] = break_(broken[0])
    for first, second in (mended, broken):
        await run.deliver(break_(first), second)
    await publish(stack, [*mended, *broken])
    letters = {(id_, f"ordering.customer_activity.{id_}", 1) for id_ in (RETRIED, SKIPPED)}
    assert await list_letters(operator) == letters

    for id_, stream, _ in letters:
        retry = protocol.RetryDeadLettersRequest(saga=FULFILMENT.name, id=id_, reason="mended")
        assert (await operator.query(retry)).retried == 1, stream
    assert await list_letters(operator) == {(SKIPPED, f"ordering.customer_activity.{SKIPPED}", 1)}
    assert (await read_versions(run, RETRIED))[1] == {f"ordering.customer_activity.{RETRIED}": 2}

    skip = protocol.SkipDeadLetterRequest(saga=FULFILMENT.name, id=SKIPPED, version=1, reason="void")
    await operator.query(skip)
    assert await list_letters(operator) == set()
    assert (await read_versions(run, SKIPPED))[1] == {f"ordering.customer_activity.{SKIPPED}": 2}
