"""The ASGI application that answers the calls: from headers and body to a route, and back to a status."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any

from grpc import StatusCode

from runtime.grpc import errors
from runtime.grpc.h2corn.call import Aborted, Call, Send
from runtime.grpc.h2corn.headers import InvalidHeaders, is_grpc, read_headers
from runtime.grpc.h2corn.messages import ClientGone, Receive, read_message
from runtime.grpc.late_messages import MESSAGE_TIMEOUT, RETRY_AFTER, CrowdedOutError, LateMessages
from runtime.grpc.metrics import CALLS_SHED
from runtime.grpc.routes import Route, Routes
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

Serve = Callable[[Receive, Call], Awaitable[None]]
"""Serves a call with a stream of requests."""

_NOT_GRPC = {"type": "http.response.start", "status": 415, "headers": []}
_NO_WEBSOCKET = {"type": "websocket.close"}
_NO_BODY = {"type": "http.response.body", "body": b""}

MAX_PUBLIC_STREAMS = 6_000
"""Streams without a token, of health and reflection. They last, and would keep places of other calls."""
CANCELLATION_DELAY = 1.0
"""Seconds in which h2corn cancels a call whose client has left. If the call ended before, h2corn would try to
answer it, and print that it could not."""

log = logs.get_logger(__name__)


class Application:
    """Answers calls.

    Args:
        routes: of the calls.
        public: further routes, by path.
        streaming: methods with a stream of requests, by path.
    """

    def __init__(self, routes: Routes, public: Mapping[str, Route], streaming: Mapping[str, Serve]) -> None:
        self._routes = routes
        self._public = public
        self._streaming = streaming
        self._is_stopping = False
        self._calls: set[Call] = set()
        self._idle = asyncio.Event()
        """Set while there is no call."""
        self._idle.set()
        self.late_messages = LateMessages()
        self._public_streams = LateMessages(MAX_PUBLIC_STREAMS)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request of a connection (ASGI)."""
        if scope["type"] == "websocket":
            await send(_NO_WEBSOCKET)
            return
        if scope["method"] != "POST" or not is_grpc(scope["headers"]):
            await send(_NOT_GRPC)
            await send(_NO_BODY)
            return
        call = Call(scope, send)
        self._calls.add(call)
        self._idle.clear()
        try:
            await self._answer(call, scope, receive)
        except OSError:
            pass  # the client has left
        finally:
            call.close()
            self._calls.discard(call)
            if not self._calls:
                self._idle.set()

    async def _answer(self, call: Call, scope: Mapping[str, Any], receive: Receive) -> None:
        try:
            response = await self._handle(call, scope, receive)
            if response is not None:
                await call.respond(response)  # until the deadline, since the client may not read it
                return
        except Aborted:
            pass
        except asyncio.CancelledError:
            if call.is_late:
                call.set_status(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            elif self._is_stopping:
                call.set_status(StatusCode.UNAVAILABLE, "the server has stopped")
            else:
                call.set_status(StatusCode.CANCELLED, "the client has left")
        except ClientGone:
            await asyncio.sleep(CANCELLATION_DELAY)
            return
        except OSError:
            raise
        except Exception as error:
            log.exception("Call failed", method=scope["path"])
            call.set_status(StatusCode.UNKNOWN, f"Unexpected {type(error)}")
        call.close()
        await call.finish()

    async def _handle(self, call: Call, scope: Mapping[str, Any], receive: Receive) -> Any:
        try:
            return await self._dispatch(call, scope, receive)
        except InvalidHeaders as error:
            invalid = RpcError("REQUEST_INVALID", str(error))
        except RpcError as error:  # of this module or of a public method; the interceptors handle their own
            invalid = error
        return await errors.abort(call, invalid)

    async def _dispatch(self, call: Call, scope: Mapping[str, Any], receive: Receive) -> Any:
        # Not scope["path"], which is decoded: a rule of a proxy for `/a.B/C` does not match `/a.B/%43`.
        path = "" if scope["query_string"] else scope["raw_path"].decode("latin-1")
        timeout, metadata = read_headers(scope["headers"])
        if timeout is not None:
            call.set_timeout(timeout)
        peer = scope["client"]
        if serve := self._streaming.get(path):
            return await self._limit_public_stream(serve(receive, call), peer)
        if public := self._public.get(path):
            answering = public.handler(await self._receive(receive, peer), call)
            return await (self._limit_public_stream(answering, peer) if public.streams else answering)
        route = self._routes.enter(path, metadata)
        request = None if route.is_rejection else await self._receive(receive, peer)
        return await route.handler(request, call)

    async def _limit_public_stream(self, serving: Awaitable[Any], peer: Hashable) -> Any:
        try:
            with self._public_streams.limit(peer):
                return await serving
        except CrowdedOutError:
            CALLS_SHED.count("public streams")
            problem = "too many public streams, most of them of this connection"
            raise RpcError("OVERLOADED", problem, retry_after=RETRY_AFTER) from None

    async def _receive(self, receive: Receive, peer: Hashable) -> bytes:
        try:
            with self.late_messages.limit(peer):
                return await read_message(receive)
        except CrowdedOutError:
            CALLS_SHED.count("late messages")
            problem = "too many calls of this connection wait for their message"
            raise RpcError("OVERLOADED", problem, retry_after=RETRY_AFTER) from None
        except TimeoutError:
            problem = f"no complete message arrived within {MESSAGE_TIMEOUT:.0f} seconds"
            raise RpcError("REQUEST_INVALID", problem) from None

    async def end_all(self, grace: float) -> None:
        """Give the calls in progress `grace` seconds to finish."""
        self._is_stopping = True
        await self._wait_until_idle(grace)
        for call in self._calls:
            call.cancel()
        await self._wait_until_idle(CANCELLATION_DELAY)

    async def _wait_until_idle(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
