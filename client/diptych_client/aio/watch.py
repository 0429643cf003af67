"""A watch for asyncio: an asynchronous iterator that resumes where the previous stream ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar, cast

import grpc
import grpc.aio

from diptych_client.aio.access_token import ReadToken
from diptych_client.aio.pause import wait_until_closed
from diptych_client.errors import Rejection
from diptych_client.retry_schedule import MAX_WATCH_PAUSE, RetrySchedule
from diptych_client.session import Metadata, WatchResponse, build_metadata, copy_with

Watched = TypeVar("Watched", bound=WatchResponse)


class Watch(AsyncIterator[Watched], Generic[Watched]):
    """Iterates over the responses of a watch; made by `Connection.watch`.

    A stream that ends is resumed with a fresh access token. An error that is final is raised, and ends the
    iteration. One task iterates; any task may close. A cancelled `anext` loses no response.
    """

    _stream: Any = None

    def __init__(
        self,
        method: "grpc.aio.UnaryStreamMultiCallable[Any, Watched]",
        request: Any,
        read_token: ReadToken,
        metadata: Metadata,
    ) -> None:
        self._method = method
        self._request = copy_with(request)
        self._read_token = read_token
        self._metadata = metadata
        self._schedule = RetrySchedule(max_pause=MAX_WATCH_PAUSE)
        self._closed = asyncio.Event()

    def __del__(self) -> None:
        # grpc.aio keeps a stream open that nobody refers to; once the event loop is closed, there is none.
        if self._stream is not None:
            with suppress(RuntimeError):
                self._stream.cancel()

    @property
    def resume_token(self) -> str:
        """The token of the last response, for the `resume_token` of a later watch's request."""
        return str(self._request.resume_token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __anext__(self) -> Watched:
        while not self._closed.is_set():
            try:
                response = await self._read()
            except Rejection:
                if self._closed.is_set():
                    break
                self.close()
                raise
            except asyncio.CancelledError:
                if not self._closed.is_set() or _is_cancelled():
                    raise
                break  # `close` has cancelled the stream, not this task
            if response is not None:
                self._request.resume_token = response.resume_token
                self._schedule.reset_pauses()
                return response
        raise StopAsyncIteration

    def close(self) -> None:
        """End the stream and the iteration."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    async def _read(self) -> Watched | None:
        """Return the next response; None after a pause if the stream has ended and is to be resumed."""
        if self._stream is None and not await self._open():
            return None
        try:
            response: Any = await self._stream.read()
            if response is not grpc.aio.EOF:
                return cast(Watched, response)
            pause = self._schedule.next_pause()
        except grpc.RpcError as error:
            pause = self._schedule.pause_after(Rejection.from_error(error))
        except asyncio.CancelledError:
            self._stream = None  # grpc.aio has cancelled it with the task that was reading
            raise
        self._stream = None
        await wait_until_closed(self._closed, pause)
        return None

    async def _open(self) -> bool:
        """Open a stream; return False if the watch has been closed meanwhile."""
        token = await self._read_token()
        if self._closed.is_set():
            return False
        self._schedule.start_attempt(token)
        self._stream = self._method(self._request, metadata=build_metadata(token, self._metadata))
        return True


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
