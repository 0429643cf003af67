"""Places of callers for calls in flight: they are kept apart, handed over in order, and never lost."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest

from runtime.grpc import call_places, caller
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.call_places import CallPlaces
from runtime.grpc.caller import Caller
from runtime.grpc.method import Method
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.access_rules import any_object
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import queries

UNARY = Method("/a.B/C", queries.GetChequeRequest, any_object("a.read"), streams=False)
WATCH = Method("/a.B/D", queries.GetChequeRequest, any_object("a.read"), streams=True)


class CallContext:
    """The context of a call with a deadline."""

    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining

    def time_remaining(self) -> float | None:
        return self._remaining


class Calls:
    """Calls that hold their place until `release` is set."""

    def __init__(self, per_caller: int) -> None:
        self.places = CallPlaces(per_caller)
        self.release = asyncio.Event()
        self.running: Counter[str] = Counter()
        self.order: list[Any] = []
        self._handler = self.places.intercept(UNARY, self._handle)

    async def _handle(self, request: Any, context: Any) -> str:
        subject = caller.current().subject
        self.running[subject] += 1
        self.order.append(request)
        try:
            await self.release.wait()
        finally:
            self.running[subject] -= 1
        return "OK"

    def start(self, subject: str, number: int = 0, remaining: float | None = None) -> "asyncio.Task[str]":
        async def call() -> str:
            caller.set_current(Caller(subject, frozenset()))
            context: Any = CallContext(remaining)
            try:
                return str(await self._handler(number, context))
            except RpcError as error:
                assert error.retry_after
                return error.reason

        return asyncio.create_task(call())

    def assert_all_free(self) -> None:
        assert not self.places._taken
        assert not self.places._waiting
        assert self.places._waiting_count == 0


@pytest.fixture
async def calls(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Calls]:
    monkeypatch.setattr(call_places, "MAX_WAIT", 60.0)  # a busy machine refuses no call
    calls = Calls(2)
    yield calls
    calls.assert_all_free()


async def test_a_call_beyond_the_places_waits_for_one_of_its_caller_in_order(calls: Calls) -> None:
    tasks = [calls.start("eve", number) for number in range(5)] + [calls.start("ada", 5)]
    await until(lambda: calls.running == {"eve": 2, "ada": 1})
    calls.release.set()
    assert await asyncio.gather(*tasks) == ["OK"] * 6
    assert calls.order == [0, 1, 5, 2, 3, 4]


@pytest.mark.parametrize("remaining", [None, 0.1, 0.0, -1.0])
async def test_a_call_that_finds_no_place_in_time_is_refused(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, remaining: float | None
) -> None:
    monkeypatch.setattr(call_places, "MAX_WAIT", 0.05)
    tasks = [calls.start("eve") for _ in range(2)]
    assert await calls.start("eve", remaining=remaining) == "TOO_MANY_CALLS"
    calls.release.set()
    assert await asyncio.gather(*tasks) == ["OK"] * 2


async def test_the_waiting_calls_are_bounded(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_places, "MAX_WAITING_OF_CALLER", 3)
    tasks = [calls.start("eve") for _ in range(5)]
    assert await calls.start("eve") == "TOO_MANY_CALLS"
    calls.release.set()
    assert await asyncio.gather(*tasks) == ["OK"] * 5


async def test_no_place_is_lost_when_calls_are_cancelled_at_any_moment(calls: Calls) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    calls.release.set()
    for _ in range(300):
        tasks = [calls.start(chance.choice(["eve", "ada"])) for _ in range(8)]
        for task in tasks:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        calls.assert_all_free()


async def test_a_place_that_becomes_free_as_its_call_is_cancelled_goes_to_the_next(calls: Calls) -> None:
    first = [calls.start("eve") for _ in range(2)]
    await until(lambda: calls.running["eve"] == 2)
    cancelled, last = calls.start("eve"), calls.start("eve")
    await until(lambda: calls.places._waiting_count == 2)
    calls.places._waiting["eve"][0].add_done_callback(lambda _: cancelled.cancel())
    calls.release.set()
    assert await asyncio.gather(*first, last) == ["OK"] * 3
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_without_a_limit_and_for_watches_a_handler_is_left_alone() -> None:
    async def handle(request: Any, context: Any) -> None:
        return None

    assert CallPlaces(0).intercept(UNARY, handle) is handle
    assert CallPlaces(1).intercept(WATCH, handle) is handle


async def test_a_limit_of_0_is_none() -> None:
    limit = CallLimit("TOO_MANY_WATCHES", "watches", per_caller=0, in_all=0)
    with ExitStack() as places:
        for _ in range(10_000):
            places.enter_context(limit.take_place())
        assert limit.taken == 10_000
    assert limit.taken == 0
