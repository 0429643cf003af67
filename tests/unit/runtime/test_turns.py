"""Turns of callers to begin calls."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from runtime.grpc import caller, turns
from runtime.grpc.caller import Caller
from runtime.grpc.method import Method
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.turns import MAX_BEGUN, MAX_WAIT, MIN_BEGUN, Turns
from tests.support.builders.access_rules import any_object
from tests.support.ledger.stubs import queries

UNARY = Method("/a.B/C", queries.GetChequeRequest, any_object("a.read"), streams=False)


class Server:
    """A method behind `Turns`, whose calls last one iteration of the event loop."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._handle: Any = Turns().intercept(UNARY, self._begin)

    async def _begin(self, _request: object, _context: object) -> None:
        self.begun.append(caller.current().subject)
        await asyncio.sleep(0)

    async def call(self, subject: str) -> None:
        caller.set_current(Caller(subject, frozenset()))
        await self._handle(b"", None)

    def send(self, *subjects: str) -> list["asyncio.Task[None]"]:
        return [asyncio.ensure_future(self.call(subject)) for subject in subjects]


@pytest.fixture(autouse=True)
def no_iteration_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(turns, "LONG_ITERATION", 3600.0)


async def test_calls_begin_at_once_while_few_arrive() -> None:
    server = Server()
    for _ in range(10):
        calls = server.send(*"a" * MAX_BEGUN)
        await asyncio.sleep(0)
        assert len(server.begun) == MAX_BEGUN
        await asyncio.gather(*calls)
        server.begun.clear()


async def test_callers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAIT", 3600.0)
    server = Server()
    await asyncio.gather(*server.send(*"a" * 640, *"b" * 8))
    after_first = Counter(server.begun[MAX_BEGUN : MAX_BEGUN + 16])
    assert after_first == {"a": 8, "b": 8}
    assert Counter(server.begun) == {"a": 640, "b": 8}


async def test_fewer_calls_begin_while_iterations_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    monkeypatch.setattr(turns, "LONG_ITERATION", -1.0)
    monkeypatch.setattr(turns, "MAX_WAIT", 60.0)  # on a busy machine
    calls = server.send(*"a" * 400)
    numbers = []
    for _ in range(8):
        before = len(server.begun)
        await asyncio.sleep(0)
        numbers.append(len(server.begun) - before)
    await asyncio.gather(*calls)
    assert numbers[0] == MAX_BEGUN
    assert numbers[-1] == MIN_BEGUN


async def test_a_call_that_comes_while_others_of_its_caller_have_waited_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    loop = asyncio.get_running_loop()
    calls = server.send(*"a" * (MAX_BEGUN + 20))
    await asyncio.sleep(0)
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + MAX_WAIT + 0.1)
    with pytest.raises(RpcError) as error:
        await server.call("a")
    assert (error.value.reason, error.value.retry_after) == ("OVERLOADED", turns.RETRY_AFTER)
    assert len(server.begun) < MAX_BEGUN + 20, "the others still wait"
    await server.call("b")
    await asyncio.gather(*calls)


async def test_a_call_whose_client_leaves_takes_no_turn() -> None:
    server = Server()
    calls = server.send(*"a" * (2 * MAX_BEGUN))
    await asyncio.sleep(0)
    for call in calls[MAX_BEGUN:]:
        call.cancel()
    await server.call("b")
    assert server.begun == ["a"] * MAX_BEGUN + ["b"]
    await asyncio.gather(*calls, return_exceptions=True)
