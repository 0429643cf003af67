"""Calls that wait for their message: which are ended when there are too many."""

import asyncio

import pytest

from runtime.grpc import late_messages
from runtime.grpc.late_messages import CrowdedOutError, LateMessages


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> LateMessages:
    monkeypatch.setattr(late_messages, "MAX_WAITING", 10)
    return LateMessages()


async def wait_for_message(calls: LateMessages, peer: str) -> None:
    with calls.limit(peer):
        await asyncio.Event().wait()


async def start(calls: LateMessages, peer: str, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(wait_for_message(calls, peer)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_crowd_of_one_peer_ends_the_oldest_calls_of_this_peer(limited: LateMessages) -> None:
    others = await start(limited, "other", 2) + await start(limited, "another", 1)
    crowd = await start(limited, "crowd", 100)
    await asyncio.sleep(0)
    waiting = [task for task in crowd if not task.done()]
    assert waiting == crowd[-len(waiting) :], "the oldest ones have ended"
    assert 0 < len(waiting) <= 7
    assert {type(task.exception()) for task in crowd if task.done()} == {CrowdedOutError}
    assert not any(task.done() for task in others)
    for task in (*others, *waiting):
        task.cancel()


async def test_a_call_that_its_client_cancels_is_cancelled(limited: LateMessages) -> None:
    (task,) = await start(limited, "peer", 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_calls_that_have_ended_are_not_counted(limited: LateMessages) -> None:
    for _ in range(100):
        with limited.limit("peer"):
            pass
    assert not limited._waiting


async def test_the_limit_may_be_another(limited: LateMessages) -> None:
    calls = LateMessages(max_waiting=20)
    tasks = await start(calls, "peer", 20)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
