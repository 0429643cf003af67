"""What makes calls wait, refuses them or holds the event loop up is measured, by the thing that does."""

import asyncio
import threading
import time
from contextlib import ExitStack

import pytest

from runtime.grpc import waits
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.clock_check import check_clock
from runtime.grpc.metrics import CALLS_REFUSED, CALLS_SHED, WAITS_ENDED, WAITS_OPEN
from runtime.grpc.refused_call_counts import RefusedCall
from runtime.grpc.refused_calls import RefusedCalls
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import Waits, Woken
from runtime.process import watchdog
from runtime.process.watchdog import Watchdog
from runtime.telemetry.metrics import CLOCK_OFFSET, EVENT_LOOP_DELAY, EVENT_LOOP_STALLED
from tests.support.harness.waiting import until


@pytest.fixture(autouse=True)
def no_measurements() -> None:
    for metric in (CALLS_REFUSED, CALLS_SHED, WAITS_ENDED, WAITS_OPEN, EVENT_LOOP_DELAY, EVENT_LOOP_STALLED):
        metric.clear()


def count_delays(at_least: float = 0.0) -> int:
    distribution = EVENT_LOOP_DELAY.distributions.get(())
    if distribution is None:
        return 0
    first = next(number for number, bound in enumerate(EVENT_LOOP_DELAY.bounds) if bound > at_least)
    return sum(distribution.buckets[first:] if at_least else distribution.buckets)


async def test_a_loop_that_is_held_up_shows_while_it_is_and_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL", 0.02)
    watching, seen = Watchdog(60, 0), list[float]()
    await until(lambda: count_delays() >= 3)

    def read_from_another_thread() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not any(value >= 0.2 for value in seen):
            seen.append(EVENT_LOOP_STALLED.read_values()[()])
            time.sleep(0.01)

    reader = threading.Thread(target=read_from_another_thread)
    reader.start()
    while reader.is_alive():  # holds the loop up until the other thread has seen it
        time.sleep(0.01)  # noqa: ASYNC251 - that is the point
    assert max(seen) >= 0.2
    await until(lambda: count_delays(at_least=0.1) >= 1)
    watching.stop()


async def test_waits_are_counted_while_they_last_and_by_their_end() -> None:
    waiting = Waits(0.05, CallLimit("TOO_MANY_WAITS", "waiting calls", 0, 3))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(waiting.begin(None))
        assert WAITS_OPEN.read_values() == {(): 3}
        with pytest.raises(RpcError), waiting.begin(None):
            pass
    assert WAITS_OPEN.read_values() == {(): 0}
    assert WAITS_ENDED.sums == {("reached",): 3}
    assert CALLS_SHED.sums == {("waiting calls",): 1}
    with pytest.raises(LookupError), waiting.begin(waits.compute_deadline(0.06)) as wait:
        assert await wait.sleep() is Woken.TIME_UP
        raise LookupError
    with pytest.raises(asyncio.CancelledError), waiting.begin(None):
        raise asyncio.CancelledError
    assert WAITS_ENDED.sums == {("reached",): 3, ("timed_out",): 1, ("left",): 1}


async def test_refused_calls_are_counted_by_reason() -> None:
    async def record(_call: RefusedCall) -> None:
        pass

    calls = RefusedCalls(record)
    for reason, caller in (("UNAUTHENTICATED", None), ("UNAUTHENTICATED", None), ("SCOPE_MISSING", "eve")):
        await calls._add(RefusedCall("/a.B/C", reason, caller, {}, "ipv4:10.0.0.7:1"))
    await calls.close()
    assert CALLS_REFUSED.sums == {("UNAUTHENTICATED",): 2, ("SCOPE_MISSING",): 1}


async def test_an_offset_that_nobody_knows_any_more_is_no_longer_shown() -> None:
    async def fail() -> float:
        raise ConnectionError

    async def read_time() -> float:
        return time.time()

    await check_clock("Redis", read_time)
    assert abs(CLOCK_OFFSET.read_values()[()]) < 1_000
    with pytest.raises(ConnectionError):
        await check_clock("Redis", fail)
    assert CLOCK_OFFSET.read_values() == {}
