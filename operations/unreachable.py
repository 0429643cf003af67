"""A server that cannot be reached, whichever it is: what its client raises, and that in one line."""

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from runtime import jetstream

AWAY = (*jetstream.UNREACHABLE, RedisError, SQLAlchemyError)


def why(error: BaseException) -> str:
    """Return an error's first line, without the library's advice."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
