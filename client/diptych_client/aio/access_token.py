"""The source of access tokens: a string, a function, or a coroutine function."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable

ReadToken = Callable[[], Awaitable[str]]
TokenSource = str | Callable[[], str] | Callable[[], Awaitable[str]] | None


def read_from(source: TokenSource) -> ReadToken:
    """Return a coroutine function that reads the access token; it is empty if there is no source."""

    async def read_token() -> str:
        token = source() if callable(source) else source or ""
        return await token if isawaitable(token) else token

    return read_token
