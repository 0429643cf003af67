"""Waiting calls end before their deadlines, also while the event loop is busy, and are bounded in number."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from runtime.grpc import caller, waits
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.caller import Caller
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.waits import Waits, Woken
from tests.support.harness.freshness import make_waits
from tests.support.harness.virtual_time import VirtualTimeLoop, in_virtual_time
from tests.support.harness.waiting import until


async def measure(waiting: Waits, remaining: float | None) -> float:
    """Return the seconds until the time of a wait that nothing wakes is up."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    with waiting.begin(waits.compute_deadline(remaining)) as wait:
        assert await wait.sleep() is Woken.TIME_UP
        assert await wait.sleep() is Woken.TIME_UP  # once and for all
    return loop.time() - start


async def test_a_wait_ends_once_woken() -> None:
    with make_waits().begin(None) as wait:
        for reason in (Woken.DISTURBED, Woken.REACHED):
            sleeping = asyncio.create_task(wait.sleep())
            await asyncio.sleep(0)
            wait.wake(reason)
            assert await sleeping is reason


@in_virtual_time
async def test_a_wait_whose_deadline_is_near_ends_at_once(loop: VirtualTimeLoop) -> None:
    for remaining in (0.04, 0.0, -1.0):
        assert await measure(make_waits(), remaining) <= waits.TICK


@in_virtual_time
async def test_many_waits_end_earlier_than_one_because_their_errors_take_time(loop: VirtualTimeLoop) -> None:
    waiting = make_waits()
    alone = waiting.margin
    with ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(waiting.begin(None))
        assert waiting.margin == pytest.approx(alone + 400 * waits.MARGIN_PER_WAIT)

    async def is_late() -> bool:
        took = await measure(waiting, 0.4)
        loop.advance(0.0004)  # the time to send its error
        return took >= 0.4

    assert not any(await asyncio.gather(*(is_late() for _ in range(400))))


@in_virtual_time
async def test_waits_end_before_their_deadlines_while_the_loop_is_busy(loop: VirtualTimeLoop) -> None:
    """Blocks the loop for up to 80 ms again and again; the margin on an idle loop is 50 ms."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose, waiting, stopped = random.Random(seed), make_waits(), False

    async def block() -> None:
        while not stopped:
            loop.advance(choose.uniform(0.06, 0.08))
            await asyncio.sleep(0.01)

    async def is_late(remaining: float) -> bool:
        took = await measure(waiting, remaining)
        await asyncio.sleep(0)  # the error is sent in a later iteration of the loop
        return took >= remaining

    blocking = asyncio.create_task(block())
    late = await asyncio.gather(*(is_late(choose.uniform(0.8, 2.0)) for _ in range(100)))
    stopped = True
    await blocking
    assert sum(late) == 0


@in_virtual_time
async def test_the_margin_shrinks_again_after_a_stall(loop: VirtualTimeLoop) -> None:
    waiting = make_waits()
    with waiting.begin(waits.compute_deadline(60)):
        loop.advance(0.3)
        await asyncio.sleep(0.03)
        margin = waiting.margin
        assert margin > 0.1
        await until(lambda: waiting.margin < margin / 2)


async def test_an_ended_wait_leaves_nothing() -> None:
    waiting = make_waits()
    for _ in range(100):
        with waiting.begin(waits.compute_deadline(3600)):
            pass
    await asyncio.sleep(3 * waits.TICK)
    assert waiting.active == 0
    assert not waiting._ends


@pytest.fixture
def limit() -> Iterator[CallLimit]:
    limit = CallLimit("TOO_MANY_WAITS", "waiting calls", 2, 3)
    yield limit
    assert limit.taken == 0
    assert not limit._taken


def test_places_are_limited_per_caller_and_in_all_and_given_back(limit: CallLimit) -> None:
    def take(subject: str) -> object:
        reset = caller._CALLER.set(Caller(subject, frozenset()))
        try:
            place = limit.take_place()
            place.__enter__()
        finally:
            caller._CALLER.reset(reset)
        return place

    places = [take("eve"), take("eve")]
    with pytest.raises(RpcError, match="2 waiting calls of one caller") as error:
        take("eve")
    assert error.value.metadata == {"of": "one caller", "maximum": "2"}
    places.append(take("ada"))
    with pytest.raises(RpcError, match="3 waiting calls of all callers"):
        take("bob")
    places.pop(0).__exit__(None, None, None)  # type: ignore[attr-defined]
    places.append(take("bob"))
    for place in places:
        place.__exit__(None, None, None)  # type: ignore[attr-defined]
