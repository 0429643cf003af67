"""Streams that are slow to end do not keep others open when keys are withdrawn."""

import asyncio
from typing import Any

import pytest

from runtime.grpc.caller import Caller
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.stream_lifetimes import StreamLifetimes

CALLER = Caller("ada", frozenset())


class Keys:
    """A key set from which all keys are withdrawn."""

    loaded = True
    on_change: Any = None

    def has(self, key: object) -> bool:
        return False


async def test_a_stream_that_ends_slowly_does_not_keep_later_ones_open() -> None:
    keys, may_end, is_ending = Keys(), asyncio.Event(), asyncio.Event()
    source: Any = keys
    streams = StreamLifetimes(source)

    async def run(key: Any, cleanup: asyncio.Event) -> None:
        async with streams.limit(CALLER, key):
            try:
                await asyncio.Event().wait()
            finally:
                is_ending.set()
                await cleanup.wait()

    slow = asyncio.create_task(run("a", may_end))
    await asyncio.sleep(0)
    keys.on_change()
    await is_ending.wait()
    cleanup = asyncio.Event()
    cleanup.set()
    other = asyncio.create_task(run("b", cleanup))
    await asyncio.sleep(0)
    keys.on_change()
    with pytest.raises(RpcError, match="withdrawn"):
        await asyncio.wait_for(other, 20)
    assert not slow.done()
    may_end.set()
    with pytest.raises(RpcError, match="withdrawn"):
        await slow
