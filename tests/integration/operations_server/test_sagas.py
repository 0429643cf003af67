"""Sagas over the API: thousands are listed page by page, by every filter, and by what they are about."""

import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.ordering.v2 import events_pb2 as events
from diptych.sagas.v1.types_pb2 import Saga

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations_server.sagas.term_index import SEGMENT
from process_manager.sagas.fulfilment import FULFILMENT
from tests.support.harness.caller import Caller
from tests.support.harness.waiting import until

COUNT = 1_000
STATES = ("PREPARING", "CONFIRMED", "UNWINDING", "REJECTED")
ADD_SAGAS = """
INSERT INTO sagas (saga, id, partition, version, state, status, ended, waiting_for, blocked_reason,
  failed_input, correlation_id, began_at, status_since, due_at)
SELECT 'fulfilment.fulfilment', id, 0, 1, $7, status, ended, '', blocked, '', '', began, began, due
FROM unnest($1::text[], $2::text[], $3::bool[], $4::text[], $5::timestamptz[], $6::timestamptz[])
  AS t(id, status, ended, blocked, began, due)
"""
ADD_STEPS = """
INSERT INTO saga_steps (saga, id, step, attempt, partition, number, method, request, request_id, decided_at,
  due_at, tries, error)
SELECT 'fulfilment.fulfilment', id, 'reserve-1', 1, 0, 1, '/a.B/C', '', gen_random_uuid(), now(), now(), 3,
  'UNAVAILABLE: Connection refused' FROM unnest($1::text[]) AS t(id)
"""
ADD_EVENTS = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
SELECT 'ordering.order.' || id, 1, 'diptych.ordering.v2.OrderPlaced', data, '{}', now()
FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS t(id, data, n) ORDER BY n
"""
REJECT = """UPDATE sagas SET state = jsonb_set(state, '{order_status}', '"REJECTED"') WHERE id = $1"""
ADD_OTHER_EVENTS = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
SELECT 'banking.account.a', n, 'diptych.banking.v1.MoneyDeposited', '', '{}', now()
FROM generate_series(1, $1) n
"""


@dataclass(frozen=True)
class Instance:
    """What is known of a planted instance."""

    id: str
    state: str
    blocked: str
    began: datetime
    due: datetime | None
    customer: str
    sku: str
    has_error: bool

    @property
    def ended(self) -> bool:
        return self.state == "REJECTED"


def make_instances(chance: random.Random) -> list[Instance]:
    now, instances = datetime.now(UTC), []
    for number in range(COUNT):
        state = chance.choice(STATES)
        began = now - timedelta(seconds=chance.randrange(1, 100_000))
        blocked = "Funds are gone" if state == "UNWINDING" and chance.random() < 0.1 else ""
        due = None if state in ("REJECTED", "CONFIRMED") else now + timedelta(hours=chance.choice((-1, 1)))
        customer, sku = f"c-{chance.randrange(200)}", f"s-{chance.randrange(50)}"
        has_error = state == "PREPARING" and chance.random() < 0.1
        due = began if blocked else due
        instances.append(Instance(f"o-{number}", state, blocked, began, due, customer, sku, has_error))
    return instances


def place(instance: Instance) -> bytes:
    event = events.OrderPlaced(order_id=instance.id, customer_id=instance.customer, account_id="a")
    event.groups.add(warehouse_id="w").lines.add(sku=instance.sku, title="c-0 in a text is no id")
    return event.SerializeToString()


async def plant(stack: Stack, instances: list[Instance]) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    columns = [
        [getattr(each, name) for each in instances]
        for name in ("id", "state", "ended", "blocked", "began", "due")
    ]
    state = msgspec.json.encode(FULFILMENT.initial).decode()
    await connection.execute(ADD_SAGAS, *columns, state)
    await connection.execute(ADD_STEPS, [each.id for each in instances if each.has_error])
    await connection.execute(ADD_EVENTS, [each.id for each in instances], [place(each) for each in instances])
    await connection.close()


async def list_all(operator: Caller, **fields: Any) -> list[Saga]:
    sagas, token = list[Saga](), ""
    while True:
        page = await operator.query(protocol.ListSagasRequest(page_token=token, **fields))
        assert len(page.sagas) <= (fields.get("page_size") or 50)
        sagas += page.sagas
        token = page.next_page_token
        if not token:
            return sagas


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    stack = temporary_stack(
        tmp_path_factory.mktemp("sagas"),
        command_servers=0,
        relays=0,
        projectors=0,
        query_servers=0,
        operations_servers=1,
    )
    async with stack:
        yield stack


@pytest.fixture(scope="module")
async def instances(stack: Stack) -> list[Instance]:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    made = make_instances(random.Random(seed))
    await plant(stack, made)
    return made


async def test_pages_have_what_each_filter_selects_in_the_order_of_due_times(
    operator: Caller, instances: list[Instance]
) -> None:
    now, middle = datetime.now(UTC), datetime.now(UTC) - timedelta(seconds=50_000)
    filters: list[tuple[dict[str, Any], Callable[[Instance], bool]]] = [
        ({}, lambda _: True),
        ({"saga": FULFILMENT.name}, lambda _: True),
        ({"state": "UNWINDING"}, lambda it: it.state == "UNWINDING"),
        ({"open_only": True}, lambda it: not it.ended),
        ({"blocked_only": True}, lambda it: bool(it.blocked)),
        ({"overdue_only": True}, lambda it: it.due is not None and it.due < now),
        ({"error": "funds ARE"}, lambda it: bool(it.blocked)),
        ({"error": "connection refused"}, lambda it: it.has_error),
        ({"began_before": middle}, lambda it: it.began < middle),
        (
            {"state": "PREPARING", "overdue_only": True, "error": "refused", "began_before": middle},
            lambda it: it.has_error and it.due is not None and it.due < now and it.began < middle,
        ),
        ({"state": "NONE"}, lambda _: False),
        ({"saga": "banking.hold_deadline"}, lambda _: False),
    ]
    never = datetime(9999, 1, 1, tzinfo=UTC)
    for fields, selects in filters:
        found = await list_all(operator, page_size=200, **fields)
        selected = sorted(filter(selects, instances), key=lambda it: (it.due or never, it.began, it.id))
        assert [saga.id for saga in found] == [each.id for each in selected], fields


async def compare_terms(operator: Caller, instances: list[Instance], size: int) -> None:
    """Compare what is found by terms with the planted instances, the latest first."""
    latest_first = instances[::-1]
    terms: list[tuple[str, list[Instance]]] = [
        (latest_first[7].id, [latest_first[7]]),
        ("c-0", [each for each in latest_first if each.customer == "c-0"]),
        ("s-9", [each for each in latest_first if each.sku == "s-9"]),
        ("w", latest_first),
        ("c-0 in a text is no id", []),
        ("unknown", []),
    ]
    for term, expected in terms:
        found = await list_all(operator, term=term, page_size=size)
        assert [saga.id for saga in found] == [each.id for each in expected], term
    ended = await list_all(operator, term="s-9", state="REJECTED", saga=FULFILMENT.name, page_size=size)
    assert [saga.id for saga in ended] == [each.id for each in terms[2][1] if each.ended]
    assert not await list_all(operator, term="s-9", saga="banking.hold_deadline")


async def test_instances_are_found_by_ids_that_their_first_events_name(
    operator: Caller, instances: list[Instance]
) -> None:
    await compare_terms(operator, instances, size=200)


@pytest.mark.long
async def test_instances_are_found_by_the_index(
    stack: Stack, operator: Caller, instances: list[Instance]
) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    await connection.execute(ADD_OTHER_EVENTS, 2 * SEGMENT)

    async def is_indexed() -> bool:
        return bool(await connection.fetchval("SELECT max(until) >= $1 FROM saga_term_segments", 2 * SEGMENT))

    await until(is_indexed, 60)
    await connection.close()
    for size in (7, 77):
        await compare_terms(operator, instances, size)


async def test_tokens_belong_to_their_filter(operator: Caller, instances: list[Instance]) -> None:
    first = await operator.query(protocol.ListSagasRequest(open_only=True))
    other = protocol.ListSagasRequest(blocked_only=True, page_token=first.next_page_token)
    assert await operator.rejection_reason(other) == "PAGE_TOKEN_INVALID"
    by_term = protocol.ListSagasRequest(open_only=True, term="w", page_token=first.next_page_token)
    assert await operator.rejection_reason(by_term) == "PAGE_TOKEN_INVALID"
    unknown = protocol.ListSagasRequest(saga="no.saga")
    assert await operator.rejection_reason(unknown) == "SAGA_UNKNOWN"
    (saga,) = (await operator.query(protocol.GetSagaRequest(id=instances[0].id))).sagas
    assert (saga.saga, saga.state) == (FULFILMENT.name, instances[0].state)


async def test_acts_that_the_state_does_not_permit_are_refused_and_on_record(
    stack: Stack, operator: Caller, instances: list[Instance]
) -> None:
    connection = await asyncpg.connect(stack.settings.database_url)
    ended = next(each for each in instances if each.ended)
    await connection.execute(REJECT, ended.id)
    for request, reason in (
        (protocol.AbortSagaRequest(id="nobody", reason="why"), "SAGA_NOT_FOUND"),
        (protocol.RetrySagaRequest(saga="no.saga", id=ended.id, reason="why"), "SAGA_UNKNOWN"),
        (protocol.AbortSagaRequest(id=ended.id, reason="why"), "ACTION_NOT_POSSIBLE"),
        (protocol.AbortSagaRequest(id=ended.id), "REQUEST_INVALID"),
    ):
        assert await operator.rejection_reason(request) == reason
    acts = await connection.fetch("SELECT act, outcome, subject FROM operator_acts ORDER BY number")
    assert [tuple(act)[:2] for act in acts] == [
        ("AbortSaga", "SAGA_NOT_FOUND"),
        ("RetrySaga", "SAGA_UNKNOWN"),
        ("AbortSaga", "ACTION_NOT_POSSIBLE"),
    ]
    await connection.close()
