"""Hands the calls of grpc.aio over to routes, and knows when none waits to be handed over.

How it works. gRPC calls `Handlers.service` for every call that it has received and hands over to Python. The
rest of this module makes the server stop without failing a call.

- When a server stops, gRPC cancels the calls that it has received but not handed over: under load, most of
  the calls in progress. Their callers would see CANCELLED, which few clients retry.
- `drain` therefore waits until no call waits to be handed over. It serves calls until it finds a gap between
  them, for at most 0.2 seconds. Then it rejects calls with UNAVAILABLE, which clients retry elsewhere, until
  it finds a longer gap, for at most 4 seconds. If calls came while it served, the next call of a client that
  collects garbage or gets no CPU time may be late, so that gap is longer still.
- A gap is a number of consecutive ticks of 2 ms without a new call. A late tick does not count: the process
  did not run in the meantime, so calls may be waiting.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import grpc

from runtime.grpc.method import serialize
from runtime.grpc.routes import Route, Routes

MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_TICK = 0.002
"""Seconds between two checks for new calls."""
_SERVING_GAP, _IDLE_GAP, _BUSY_GAP = 4, 12, 120
"""Ticks without a new call that make a gap: while serving; while rejecting on an idle server; while
rejecting on one that had calls. A waiting call is handed over within a tick."""
_MAX_SERVING_TIME = 0.2
_MAX_REJECTING_TIME = 4.0
"""Seconds to wait for a gap. Rejecting costs little, and on a busy machine it may take long until enough
ticks are on time."""


class Handlers(grpc.GenericRpcHandler):
    """The handlers of routes, as grpc.aio wants them."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._call_count = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        """Return the handler of a call; gRPC calls this method when it hands the call over."""
        self._call_count += 1
        details = handler_call_details
        return _create_handler(self._routes.enter(details.method, details.invocation_metadata or ()))

    async def drain(self) -> None:
        """Reject new calls, and return when none waits to be handed over, so that the server can stop."""
        count = self._call_count
        await self._wait_for_gap(_MAX_SERVING_TIME, _SERVING_GAP)
        self._routes.reject_all()
        gap = _IDLE_GAP if self._call_count == count else _BUSY_GAP
        await self._wait_for_gap(_MAX_REJECTING_TIME, gap)

    async def _wait_for_gap(self, max_seconds: float, ticks: int) -> None:
        clock = asyncio.get_running_loop().time
        end, quiet_ticks = clock() + max_seconds, 0
        while quiet_ticks < ticks and clock() < end:
            count, start = self._call_count, clock()
            await asyncio.sleep(_TICK)
            # A late tick neither counts nor resets the count.
            on_time = clock() - start < 3 * _TICK
            quiet_ticks = quiet_ticks + on_time if self._call_count == count else 0


@cache
def _create_handler(route: Route) -> MethodHandler:
    make_handler: Callable[..., MethodHandler] = grpc.unary_unary_rpc_method_handler
    if route.is_rejection:  # of a call with any number of requests and responses
        make_handler = grpc.stream_stream_rpc_method_handler
    elif route.streams:
        make_handler = grpc.unary_stream_rpc_method_handler
    # Without a deserializer the interceptors receive bytes, so requests are parsed after authentication.
    return make_handler(route.handler, response_serializer=serialize)
