"""A watch for threads: an iterator that resumes where the previous stream ended."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

import grpc

from diptych_client.errors import Rejection
from diptych_client.retry_schedule import MAX_WATCH_PAUSE, RetrySchedule
from diptych_client.session import Metadata, WatchResponse, build_metadata, copy_with

Watched = TypeVar("Watched", bound=WatchResponse)


class Watch(Iterator[Watched], Generic[Watched]):
    """Iterates over the responses of a watch; made by `Connection.watch`.

    A stream that ends is resumed with a fresh access token. An error that is final is raised, and ends the
    iteration. One thread iterates; any thread may close.
    """

    def __init__(
        self,
        method: "grpc.UnaryStreamMultiCallable[Any, Watched]",
        request: Any,
        read_token: Callable[[], str],
        metadata: Metadata,
    ) -> None:
        self._method = method
        self._request = copy_with(request)
        self._read_token = read_token
        self._metadata = metadata
        self._schedule = RetrySchedule(max_pause=MAX_WATCH_PAUSE)
        self._stream: Any = None
        self._closed = threading.Event()

    @property
    def resume_token(self) -> str:
        """The token of the last response, for the `resume_token` of a later watch's request."""
        return str(self._request.resume_token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Watched:
        while not self._closed.is_set():
            try:
                response = self._read()
            except Rejection:
                if self._closed.is_set():
                    break
                self.close()
                raise
            if response is not None:
                self._request.resume_token = response.resume_token
                self._schedule.reset_pauses()
                return response
        raise StopIteration

    def close(self) -> None:
        """End the stream and the iteration."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _read(self) -> Watched | None:
        """Return the next response; None after a pause if the stream has ended and is to be resumed."""
        try:
            if self._stream is None:
                self._stream = self._open()
                if self._closed.is_set():  # `close` may have run before there was a stream to cancel
                    self._stream.cancel()
            response: Watched = next(self._stream)
            return response
        except StopIteration:
            pause = self._schedule.next_pause()
        except grpc.RpcError as error:
            pause = self._schedule.pause_after(Rejection.from_error(error))
        self._stream = None
        self._closed.wait(pause)
        return None

    def _open(self) -> Any:
        token = self._read_token()
        self._schedule.start_attempt(token)
        return self._method(self._request, metadata=build_metadata(token, self._metadata))
