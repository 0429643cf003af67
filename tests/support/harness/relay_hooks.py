"""Hooks around a relay's publisher, to fail it or to stop it between two steps."""

import asyncio
from collections.abc import Sequence

from command_server.relay.batch_sender import Publisher
from contracts.envelope import RecordedEvent


class HookedPublisher:
    """A publisher with hooks before a batch is sent and after its acknowledgement."""

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner

    async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
        await self.before(events)
        last = await self._inner.publish(epoch, events, after)
        await self.after(events)
        return last

    async def before(self, events: Sequence[RecordedEvent]) -> None:
        pass

    async def after(self, events: Sequence[RecordedEvent]) -> None:
        pass


class Gate:
    """Stops a relay at one point, like a frozen process."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.outcome: BaseException | None = None

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


def stop_before_publish(gate: Gate) -> type[HookedPublisher]:
    class GatedPublisher(HookedPublisher):
        async def publish(self, epoch: str, events: Sequence[RecordedEvent], after: int) -> int:
            if gate.reached.is_set():
                return await super().publish(epoch, events, after)
            await gate()
            try:
                return await super().publish(epoch, events, after)
            except BaseException as error:
                gate.outcome = error
                raise

    return GatedPublisher


def stop_after_publish(gate: Gate) -> type[HookedPublisher]:
    class GatedPublisher(HookedPublisher):
        async def after(self, events: Sequence[RecordedEvent]) -> None:
            if not gate.reached.is_set():
                await gate()

    return GatedPublisher
