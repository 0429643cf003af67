"""Refused calls: a flood of them costs a bounded number of records, and hides nobody else."""

import asyncio
import secrets
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from grpc import StatusCode

from runtime.grpc import caller, refused_calls
from runtime.grpc.caller import Caller
from runtime.grpc.method import Method
from runtime.grpc.refused_call_counts import (
    MAX_RECORDS,
    MAX_RECORDS_PER_SOURCE,
    OTHER,
    RefusedCall,
    RefusedCallCounts,
    strip_port,
)
from runtime.grpc.refused_calls import MAX_SINGLE_RECORDS_OF_CALLER, PEER_PACE, RefusedCalls
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.unauthenticated import Cause, Unauthenticated
from runtime.telemetry import trace_context
from tests.support.builders.access_rules import any_object
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import commands, queries

METHOD = Method("/a.B/C", queries.GetChequeRequest, any_object("a.read"), False)
CAUSES = list(Cause)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def unauthenticated(peer: str, cause: str = Cause.EXPIRED, key: str = "k") -> RefusedCall:
    return RefusedCall("/a.B/C", "UNAUTHENTICATED", None, {"cause": cause, "key": key}, peer)


def test_equal_calls_over_any_connection_share_a_record() -> None:
    counts = RefusedCallCounts()
    for port in range(1000):
        counts.add(unauthenticated(f"ipv4:10.0.0.7:{port}"))
    (record,) = counts.take()
    assert (record.peer, record.calls) == ("ipv4:10.0.0.7", 1000)
    assert record.details.keys() == {"cause", "key", "since"}
    assert counts.take() == []


def test_many_peers_and_made_up_keys_are_counted_in_a_bounded_number_of_records() -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    counts, total = RefusedCallCounts(), 20_000
    for number in range(total):
        counts.add(unauthenticated(f"ipv4:10.0.{number % 999}.7:1", CAUSES[number % 7], f"{seed}-{number}"))
    records = counts.take()
    assert len(records) <= MAX_RECORDS + len(CAUSES)
    assert sum(record.calls for record in records) == total
    by_cause = Counter[str]()
    for record in records:
        by_cause[record.details["cause"]] += record.calls
    assert len(by_cause) == 7, "the cause of a call is kept, whoever it is from"


def test_one_peer_with_made_up_keys_leaves_room_for_others() -> None:
    counts = RefusedCallCounts()
    for number in range(10_000):
        counts.add(unauthenticated("ipv4:10.0.0.7:1", key=f"made-up-{number}"))
    counts.add(unauthenticated("ipv4:10.0.0.8:1", Cause.WRONG_AUDIENCE))
    records = counts.take()
    assert len(records) == MAX_RECORDS_PER_SOURCE + 2
    assert {record.peer for record in records} == {"ipv4:10.0.0.7", "ipv4:10.0.0.8", OTHER}


@pytest.mark.parametrize(
    ("peer", "stripped"),
    [
        ("ipv4:10.0.0.7:41200", "ipv4:10.0.0.7"),
        ("ipv6:%5B::1%5D:41200", "ipv6:%5B::1%5D"),
        ("unix:/run/a", "unix:/run/a"),
        ("", ""),
    ],
)
def test_a_peer_is_counted_without_its_port(peer: str, stripped: str) -> None:
    assert strip_port(peer) == stripped


class CallContext:
    """The context of a call of a peer."""

    def peer(self) -> str:
        return "ipv4:10.0.0.7:41200"


CONTEXT: Any = CallContext()


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_calls, "DELAY", 0.0)


class Recorded:
    """Refused calls with short intervals, and what they record."""

    def __init__(self, intervals: tuple[float, float] = (0.01, 0.05)) -> None:
        self.calls: list[RefusedCall] = []
        self.refused = RefusedCalls(self._record, intervals)

    async def _record(self, call: RefusedCall) -> None:
        self.calls.append(call)

    def has_counted(self, calls: int) -> bool:
        return sum(call.calls for call in self.calls) == calls

    async def refuse(self, error: RpcError, times: int) -> None:
        async def fail(request: Any, context: Any) -> None:
            raise error

        handler = self.refused.intercept(METHOD, fail)
        for _ in range(times):
            with suppress(RpcError):
                await handler(b"", CONTEXT)


async def test_counts_are_recorded_soon_and_then_at_intervals_until_nothing_is_refused() -> None:
    recorded = Recorded()
    for times in (500, 1000):
        await recorded.refuse(Unauthenticated(Cause.MISSING, "no token"), 500)
        await until(partial(recorded.has_counted, times))
    assert len(recorded.calls) < 100
    await until(lambda: recorded.refused._writer is not None and recorded.refused._writer.done())
    await recorded.refuse(Unauthenticated(Cause.MISSING, "no token"), 1)
    await until(lambda: recorded.calls[-1].calls == 1)


async def test_invalid_calls_of_a_caller_are_recorded_alone_while_they_are_few() -> None:
    recorded, calls = Recorded(intervals=(60.0, 60.0)), 500
    caller.set_current(Caller("eve", frozenset()))
    trace_context.set_current(f"00-{TRACE}-b7ad6b7169203331-00")
    for number in range(calls):
        invalid = RpcError("REQUEST_INVALID", "no", violations={f"names[{number}]": "is no name"})
        await recorded.refuse(invalid, 1)
    await recorded.refused.close()
    alone, (rest,) = recorded.calls[:-1], recorded.calls[-1:]
    assert len(alone) == MAX_SINGLE_RECORDS_OF_CALLER
    assert {call.details["trace_id"] for call in alone} == {TRACE}
    assert rest.details.keys() == {"since"}
    assert (rest.caller, rest.calls) == ("eve", calls - MAX_SINGLE_RECORDS_OF_CALLER)
    assert invalid.code is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (commands.DepositRequest(request_id=str(UUID(int=7))), {"request_id": str(UUID(int=7))}),
        (commands.DepositRequest(request_id="7"), {}),
        (None, {}),
    ],
)
async def test_a_refused_command_is_recorded_with_its_request_id(command: Any, expected: Any) -> None:
    async def fail(_request: Any, _context: Any) -> None:
        raise RpcError("SCOPE_MISSING", "no")

    recorded = Recorded()
    caller.set_current(Caller("eve", frozenset()))
    method = Method("/a.B/C", commands.DepositRequest, any_object("a.write"), False)
    body = b"\xff" if command is None else command.SerializeToString()
    with suppress(RpcError):
        await recorded.refused.intercept(method, fail)(body, CONTEXT)
    (call,) = recorded.calls
    assert call.details == expected


async def test_the_answers_to_a_peer_with_many_unauthenticated_calls_are_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refused_calls, "DELAY", 3600.0)
    pace = refused_calls.Pace()
    late = [asyncio.create_task(pace.wait("a")) for _ in range(3 * PEER_PACE)]
    await asyncio.sleep(0)
    await pace.wait("b")
    waiting = [task for task in late if not task.done()]
    assert len(waiting) >= PEER_PACE
    for task in waiting:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    assert pace._delayed == 0
