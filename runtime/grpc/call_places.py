"""Places of callers for their calls in flight, so that one caller cannot use up a server.

How it works. Each caller has the same number of places (`DIPTYCH_MAX_CALLS_PER_CALLER`). A call takes one
before its request is decoded, and gives it back when it is answered. A call that finds none waits for one of
its caller, first come, first served; it costs nothing meanwhile, so a caller that waits for its answers slows
itself down and nobody else. It begins HAND_OVER_PAUSE after the place became free: a caller that keeps within
its places leaves each of them unused while an answer and the next call are on the way, and without the pause
a caller with many calls would be served twice as often. After MAX_WAIT, or shortly before its deadline, a
call is refused with a hint. Refusing it at once would cost as much as an answer, each time that a caller
without patience tries again.

Calls that gRPC has not handed over are in no place, because Python does not see them. With a limit the server
therefore takes many calls at a time (`server.INTAKE_FOR_LIMITS`, docs/adr/0037).
"""

import asyncio
from collections import Counter, deque

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.metrics import CALLS_SHED
from runtime.grpc.rpc_error import RpcError

MAX_WAIT = 1.0
"""Seconds that a call waits for a place of its caller."""
DEADLINE_MARGIN = 0.05
"""Seconds before its deadline at which it is refused."""
MAX_WAITING, MAX_WAITING_OF_CALLER = 2_000, 1_000
"""Calls that wait, of all callers and of one; the next one is refused at once, to bound the memory."""
HAND_OVER_PAUSE = 0.002
"""Seconds until a place that has become free is taken by a call that waits for it."""
RETRY_AFTER = 0.5
"""Seconds after which a refused call may find a place."""

Place = asyncio.Future[None]


class CallPlaces:
    """The calls in flight of each caller.

    Args:
        per_caller: places of one caller; 0 for any number.
    """

    def __init__(self, per_caller: int) -> None:
        self._per_caller = per_caller
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[Place]] = {}
        self._waiting_count = 0

    def intercept(self, method: Method, handler: Handler) -> Handler:
        """Give each call of a method a place; watches have limits of their own."""
        if not self._per_caller or method.streams:
            return handler

        async def take_place(request: object, context: Context) -> object:
            subject = caller.current().subject
            if self._taken[subject] < self._per_caller:
                self._taken[subject] += 1
            else:
                await self._wait(subject, context.time_remaining())
            try:
                return await handler(request, context)
            finally:
                self._give_back(subject)

        return take_place

    async def _wait(self, subject: str, remaining: float | None) -> None:
        waiting = self._waiting.setdefault(subject, deque())
        if len(waiting) >= MAX_WAITING_OF_CALLER or self._waiting_count >= MAX_WAITING:
            self._forget_if_idle(subject)
            raise self._create_error()
        place: Place = asyncio.get_running_loop().create_future()
        waiting.append(place)
        self._waiting_count += 1
        try:
            max_wait = MAX_WAIT if remaining is None else min(MAX_WAIT, remaining - DEADLINE_MARGIN)
            async with asyncio.timeout(max_wait):
                await asyncio.shield(place)
        except TimeoutError:
            self._leave(subject, place)
            raise self._create_error() from None
        except asyncio.CancelledError:
            self._leave(subject, place)
            raise
        finally:
            self._waiting_count -= 1

    def _leave(self, subject: str, place: Place) -> None:
        """Stop waiting for a place, or give it back if it has just become free."""
        if place.done():
            self._give_back(subject)
        else:
            place.cancel()
            self._waiting[subject].remove(place)
            self._forget_if_idle(subject)

    def _give_back(self, subject: str) -> None:
        """Free the place, or hand it over to a call that waits for it."""
        if self._waiting.get(subject):
            asyncio.get_running_loop().call_later(HAND_OVER_PAUSE, self._hand_over, subject)
        else:
            self._hand_over(subject)

    def _hand_over(self, subject: str) -> None:
        if waiting := self._waiting.get(subject):
            waiting.popleft().set_result(None)
        else:
            self._taken[subject] -= 1
        self._forget_if_idle(subject)

    def _forget_if_idle(self, subject: str) -> None:
        if not self._waiting.get(subject):
            self._waiting.pop(subject, None)
        if not self._taken[subject]:
            del self._taken[subject]

    def _create_error(self) -> RpcError:
        CALLS_SHED.count("calls of one caller")
        facts = {"of": "one caller", "maximum": str(self._per_caller)}
        text = f"this server has {self._per_caller} calls of one caller in flight, which is its limit"
        return RpcError("TOO_MANY_CALLS", text, facts, retry_after=RETRY_AFTER)
