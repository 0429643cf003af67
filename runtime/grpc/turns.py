"""Turns of callers to begin calls, so that overload costs each caller its own share and nobody more.

How it works. In each iteration of the event loop a number of calls begins: MAX_BEGUN, or down to MIN_BEGUN
while iterations take long. While fewer arrive, each begins at once, and this module does nothing but count.
The others wait in a queue of their caller, and callers take turns. So a caller with many calls in flight
waits for its own, and what has begun is answered before more begins.

While the oldest waiting call of a caller has waited longer than MAX_WAIT, further ones of that caller are
refused, before their request is decoded. The time counts rather than a number, so that a burst of many cheap
calls is no overload. A call waits for nothing but the event loop here: one that waits for a commit or for a
view has begun.
"""

import asyncio
from collections import deque

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.metrics import CALLS_SHED
from runtime.grpc.rpc_error import RpcError

MIN_BEGUN, MAX_BEGUN = 8, 64
"""Calls that begin in one iteration; h2corn hands over at most 64. With never more than 8, a query server
under three times its peak answered 0.69 of it, and a caller within its share kept 0.24 of its rate; with 64
these were 1.03 and 0.69."""
LONG_ITERATION = 0.05
"""Seconds of an iteration after which fewer calls begin in the next one."""
MAX_WAIT = 0.5
"""Seconds that the oldest waiting call of a caller may have waited when another one comes."""
RETRY_AFTER = 0.5
"""Seconds after which a refused call may find a shorter queue."""

Turn = tuple[asyncio.Future[None], float]
"""Its begin, and the time since when a call waits for it."""


class Turns:
    """The calls of a server that wait for their turn, by caller."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Turn]] = {}
        """By the caller's subject; the one whose turn is next comes first."""
        self._begun = 0
        """Calls that began in this iteration; the next ones are scheduled if there are any."""
        self._max_begun = MAX_BEGUN
        self._began_at = 0.0
        """When this iteration was scheduled."""

    def intercept(self, method: Method, handler: Handler) -> Handler:
        """Let the calls of a method wait for their turn; watches have limits of their own."""
        if method.streams:
            return handler

        async def wait_for_turn(request: object, context: Context) -> object:
            if self._waiting or self._begun >= self._max_begun:
                await self._wait(caller.current().subject)
            else:
                if not self._begun:
                    self._schedule()
                self._begun += 1
            return await handler(request, context)

        return wait_for_turn

    async def _wait(self, subject: str) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = self._waiting.get(subject)
        if waiting is None:
            waiting = self._waiting[subject] = deque()
        elif now - waiting[0][1] > MAX_WAIT:
            CALLS_SHED.count("turns of one caller")
            raise RpcError("OVERLOADED", "calls of this caller wait too long", retry_after=RETRY_AFTER)
        turn = loop.create_future()
        waiting.append((turn, now))
        await turn

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        loop.call_soon(self._begin_next)

    def _begin_next(self) -> None:
        """Let the next calls begin; runs once in each iteration while there are calls."""
        self._begun = 0
        if asyncio.get_running_loop().time() - self._began_at > LONG_ITERATION:
            self._max_begun = max(MIN_BEGUN, self._max_begun // 2)
        else:
            self._max_begun = min(MAX_BEGUN, self._max_begun * 2)
        while self._waiting and self._begun < self._max_begun:
            subject, waiting = next(iter(self._waiting.items()))
            del self._waiting[subject]
            turn, _ = waiting.popleft()
            if waiting:
                self._waiting[subject] = waiting  # behind all others
            if not turn.done():  # the client has not left
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            self._schedule()
