"""An event loop whose clock stands still while code runs, so that a busy machine makes nothing late."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its time is that of its timers: to wait for a timer takes no time. For code without input or output."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Skipping(self.advance))

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass, as code does that blocks the loop."""
        self._now += seconds


class _Skipping(selectors.DefaultSelector):
    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("no timer is set, so the test would wait for ever")
        self._advance(max(timeout, 0.0))
        return super().select(0)


def in_virtual_time(test: Callable[[VirtualTimeLoop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an asynchronous test on a loop of its own, which the test receives."""

    def run() -> None:
        loop = VirtualTimeLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(test(loop))

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return run
