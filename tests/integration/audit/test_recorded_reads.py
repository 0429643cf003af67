"""Calls of methods whose proto says so are on record before they are answered, or are not answered."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from diptych.access.v1 import access_pb2
from diptych.banking.v1 import query_service_pb2 as banking

from runtime.grpc import caller
from runtime.grpc.caller import Caller
from runtime.grpc.method import Method
from runtime.grpc.read_table import ReadTable, create_read_engine
from runtime.grpc.recorded_reads import Read, RecordedReads
from runtime.grpc.rpc_error import RpcError
from runtime.process.start_error import StartError
from tests.support.builders.access_rules import any_object
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries

METHOD = Method(
    "/a.B/C", queries.GetChequeRequest, any_object("a.read"), streams=False, recorded_ids=("cheque_id",)
)
REQUEST = queries.GetChequeRequest(cheque_id="c-1")
ALICE = Caller("alice", frozenset(), on_behalf_of="pat")


@pytest.fixture
async def table(database_url: str) -> AsyncIterator[ReadTable]:
    table = ReadTable(create_read_engine(database_url))
    yield table
    await table.close()


@dataclass
class Calls:
    """Calls of one method, with the reads that were recorded when the handler was called."""

    record: Any
    answered: list[str] = field(default_factory=list)
    error: RpcError | None = None

    async def handle(self, request: Any, _context: Any) -> str:
        self.answered.append(request.cheque_id)
        if self.error is not None:
            raise self.error
        return "answer"

    async def call(self, request: Any = REQUEST) -> Any:
        handler = RecordedReads(self.record).intercept(METHOD, self.handle)

        async def run() -> Any:
            caller.set_current(ALICE)
            return await handler(request, None)  # type: ignore[arg-type]

        return await asyncio.create_task(run())


async def test_a_read_is_on_record_with_caller_person_method_and_ids(
    table: ReadTable, database_url: str
) -> None:
    calls = Calls(table.record)
    requests = [queries.GetChequeRequest(cheque_id=f"c-{number}") for number in range(20)]
    assert await asyncio.gather(*map(calls.call, requests)) == ["answer"] * 20
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT caller, on_behalf_of, method, ids[1], number FROM reads ORDER BY number"
    )
    await connection.close()
    assert {tuple(row[:3]) for row in rows} == {("alice", "pat", "/a.B/C")}
    assert sorted(row[3] for row in rows) == sorted(request.cheque_id for request in requests)
    assert [row["number"] for row in rows] == list(range(1, 21))


async def test_an_answer_waits_for_the_record() -> None:
    recorded = asyncio.Event()
    seen: list[Read] = []

    async def record(read: Read) -> None:
        seen.append(read)
        await recorded.wait()

    calls = Calls(record)
    call = asyncio.create_task(calls.call())
    await until(lambda: bool(calls.answered))
    assert not call.done()
    recorded.set()
    assert await call == "answer"
    assert [read.ids for read in seen] == [["c-1"]]


async def test_a_call_that_cannot_be_recorded_is_not_answered(table: ReadTable, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("REVOKE INSERT ON reads FROM diptych_query")
    with pytest.raises(RpcError) as caught:
        await Calls(table.record).call()
    assert (caught.value.reason, caught.value.code.name) == ("READ_NOT_RECORDED", "UNAVAILABLE")
    await connection.execute("GRANT INSERT ON reads TO diptych_query")
    await connection.close()
    assert await Calls(table.record).call() == "answer"


async def test_a_failed_call_is_on_record_too() -> None:
    seen: list[Read] = []

    async def record(read: Read) -> None:
        seen.append(read)

    calls = Calls(record, error=RpcError.not_found("a", "CHEQUE_NOT_FOUND", {}))
    with pytest.raises(RpcError, match="cheque not found"):
        await calls.call()
    assert len(seen) == 1


async def test_a_process_that_cannot_record_does_not_start() -> None:
    unknown = Method(
        "/a.B/C", queries.GetChequeRequest, any_object("a.read"), streams=False, recorded_ids=("id",)
    )
    stream = Method(
        "/a.B/C", queries.GetChequeRequest, any_object("a.read"), streams=True, recorded_ids=("cheque_id",)
    )

    async def record(_: Read) -> None:
        raise AssertionError

    for method, recorder in ((METHOD, None), (unknown, record), (stream, record)):
        with pytest.raises(StartError, match=r"/a\.B/C"):
            RecordedReads(recorder).intercept(method, Calls(record).handle)


def test_reads_of_banking_are_recorded() -> None:
    service = banking.DESCRIPTOR.services_by_name["QueryService"]
    recorded = {
        name: list(method.GetOptions().Extensions[access_pb2.recorded_read].ids)
        for name, method in service.methods_by_name.items()
        if method.GetOptions().HasExtension(access_pb2.recorded_read)
    }
    assert recorded == {
        "GetAccount": ["account_id"],
        "GetCase": ["case_id"],
        "GetHold": ["hold_id"],
        "GetMandate": ["mandate_id"],
        "GetOverdraft": ["overdraft_id"],
        "GetStatement": ["account_id"],
        "GetTransfer": ["transfer_id"],
        "GetWithdrawal": ["withdrawal_id"],
        "ListCases": ["account_id"],
        "ListMandates": ["owner_id", "account_id"],
        "ListTransactions": ["account_id"],
    }
