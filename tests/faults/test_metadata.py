"""Metadata that gRPC's own clients refuse to send, and what earlier releases recorded of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import grpc
import pytest
from msgspec.structs import replace

from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.outcomes import Accepted
from command_server.postgres.event_store import PostgresEventStore
from contracts.streams import VALID_ID
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.processes import COMMAND_SERVER
from runtime.grpc.metadata import CAUSATION_ID, CORRELATION_ID, IGNORED, VALID_CAUSE
from tests.support.builders.requests import group_commit, request
from tests.support.harness.command_line import diptych
from tests.support.harness.invariants import verify_stack
from tests.support.harness.raw_http2 import Header, encode_message, grpc_headers, raw_connection
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import CONTEXT, installed
from tests.support.ledger.rules.messages import WriteCheque
from tests.support.ledger.stubs import commands, commands_grpc

SERVICE = commands.DESCRIPTOR.services_by_name["CommandService"].full_name
SAGA = "ledger.collection"
BAD = {
    "NUL": b"a\0b",
    "CR": b"a\rb",
    "LF": b"a\nb",
    "CRLF": b"a\r\ndiptych-actor: mallory",
    "ESC": b"\x1b[2J\x1b]0;owned\x07",
    "DEL": b"a\x7fb",
    "C1": "\x9b2J".encode(),
    "no UTF-8": b"a\xff\xfeb",
    "bidirectional": "a\u202eb".encode(),
    "blank": b"a b",
    "quote": b"a'; DROP TABLE events; --",
    "long": b"x" * 3_000,
    "empty": b"",
}
KEYS = (CORRELATION_ID, CAUSATION_ID, "traceparent", "tracestate", "baggage", "user-agent", "x-request-id")


RECORDED = """
SELECT e.metadata, a.correlation_id, a.causation_id FROM events e JOIN audit a USING (stream)
WHERE position(convert_to($1, 'UTF8') IN e.data) > 0 ORDER BY e.position
"""


async def fetch(stack: Stack, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stack.settings.database_url)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


async def write_raw(stack: Stack, clerk: Clerk, account: str, *metadata: Header) -> None:
    """Write a cheque with any bytes in the metadata of the call."""
    bearer = [(key.encode(), value.encode()) for key, value in clerk.bearer]
    headers = grpc_headers(f"/{SERVICE}/WriteCheque".encode(), *bearer, *metadata)
    async with raw_connection(int(stack.of(COMMAND_SERVER)[0].address.rpartition(":")[2])) as connection:
        answer = await connection.call(headers, encode_message(cheque_of(account).SerializeToString()))
    assert not answer.is_reset and not answer.is_closed


async def test_only_ids_are_taken_over_from_the_metadata_of_a_call(stack: Stack, clerk: Clerk) -> None:
    account = f"meta-{uuid4().hex[:8]}"
    cases = [[(key.encode(), value)] for key in KEYS for value in BAD.values()]
    cases += [[(f"{key}-bin".encode(), value)] for key in KEYS for value in (b"AAEC", b"\0")]
    cases.append([(CORRELATION_ID.encode(), b"first"), (CORRELATION_ID.encode(), b"second")])
    for at in range(0, len(cases), 20):
        await asyncio.gather(
            *(write_raw(stack, clerk, account, *case) for case in cases[at : at + 20]), return_exceptions=True
        )
    good = {CORRELATION_ID: "c-1", CAUSATION_ID: "ledger.cheque.c-1@2"}
    await clerk.write(cheque_of(account), *good.items())
    recorded = await fetch(stack, RECORDED, account)
    assert len(recorded) >= len(cases) * 0.9, "gRPC refuses a few by itself"
    for text, correlation_id, causation_id in recorded:
        metadata = json.loads(text)
        assert metadata.keys() == {"actor", "command", "correlation_id", "causation_id"}
        assert VALID_ID.fullmatch(metadata["correlation_id"]), metadata
        assert correlation_id in (None, metadata["correlation_id"])
        assert causation_id is None or VALID_CAUSE.fullmatch(causation_id)
    assert tuple(recorded[-1])[1:] == tuple(good.values())
    assert all(tuple(each)[1:] == (None, None) for each in recorded[:-1])
    report = await verify_stack(stack)
    assert report.clean, report.to_text()


async def test_the_answer_names_the_ids_that_are_not_taken_over(stack: Stack, clerk: Clerk) -> None:
    ids = ((CORRELATION_ID, "x" * 65), (CAUSATION_ID, "a b"))
    async with grpc.aio.insecure_channel(stack.of(COMMAND_SERVER)[0].address) as channel:
        stub = commands_grpc.CommandServiceStub(channel)
        call = stub.WriteCheque(cheque_of("ada"), metadata=(*clerk.bearer, *ids))
        await call
        assert (IGNORED, f"{CORRELATION_ID},{CAUSATION_ID}") in tuple(await call.trailing_metadata())
        call = stub.WriteCheque(cheque_of("ada"), metadata=clerk.bearer)
        await call
        assert IGNORED not in [key for key, _ in await call.trailing_metadata()]


@asynccontextmanager
async def earlier_release(stack: Stack) -> AsyncIterator[GroupCommit]:
    """A command server without an edge, so that it takes over any metadata."""
    store = PostgresEventStore(stack.settings.database_url)
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    yield commits
    commits.close()
    await writer
    await store.close()


async def execute(stack: Stack, correlation_id: str) -> str:
    """Write a cheque as an earlier release would; return its id."""
    cheque_id = f"c-{uuid4().hex[:8]}"
    async with earlier_release(stack) as commits:
        command = replace(
            request(WriteCheque(cheque_id, "earlier", 999)),
            correlation_id=correlation_id,
            causation_id=correlation_id,
        )
        result = await commits.execute(command)
    assert isinstance(result.outcome, Accepted)
    return cheque_id


STORED = [value.decode("latin-1") for name, value in BAD.items() if name != "NUL"]  # PostgreSQL refuses NUL


@pytest.fixture
async def sagas_stack(tmp_path: Path) -> AsyncIterator[Stack]:
    with installed():
        async with temporary_stack(
            tmp_path, contexts=CONTEXT, process_managers=1, operations_servers=1
        ) as stack:
            yield stack


@pytest.mark.long
async def test_what_earlier_releases_recorded_stops_neither_sagas_nor_verify(sagas_stack: Stack) -> None:
    stack = sagas_stack
    ids = [await execute(stack, value) for value in STORED]
    for id_ in ids:
        await until(lambda id_=id_: shows(stack, id_, "CASHED"))  # type: ignore[misc]
        code, out, err = await diptych(stack, "sagas", "abort", id_, "--reason", "given up")
        assert (code, out.startswith(f"{SAGA} {id_}: GIVEN_UP since")) == (0, True), err
    report = await verify_stack(stack)
    assert report.clean, report.to_text()
    for id_ in ids:
        stream = f"ledger.cheque.{id_}"
        code, out, err = await diptych(stack, "events", stream)
        assert (code, err) == (0, "")
        assert all(line.isprintable() for line in out.splitlines())
        _, out, _ = await diptych(stack, "events", stream, "--json")
        assert json.loads(out.splitlines()[0])["correlation_id"] in STORED


async def shows(stack: Stack, id_: str, text: str) -> bool:
    _, out, _ = await diptych(stack, "sagas", "list", "--saga", SAGA, "--ended", "--limit", "0", "--json")
    return any(id_ in line and text in line for line in out.splitlines())
