"""Counters as Redis returns them: a flat reply of names, which contain names of enum values, and sums."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from query_server.redis_client import unreadable
from runtime.grpc.rpc_error import RpcError

N = TypeVar("N", bound=int, covariant=True)


def parse_counters(key: str, reply: Sequence[bytes]) -> dict[str, int]:
    """Return the counters in a reply to HGETALL, by name.

    Raises:
        RpcError: `VIEW_UNREADABLE`, a counter is no number.
    """
    try:
        return {name.decode(): int(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
    except ValueError as error:
        raise unreadable(key, str(error)) from error


class Enum(Protocol[N]):
    """An enum of a proto, whose values have numbers of the type `N`."""

    def Value(self, name: str) -> N: ...  # noqa: N802  # Protobuf's name


def parse_enum(enum: Enum[N], name: str) -> N:
    """Return the value with this name.

    Raises:
        RpcError: `VIEW_NEWER`, newer code has written the name.
    """
    try:
        return enum.Value(name)
    except ValueError:
        raise RpcError("VIEW_NEWER", f"{name} is unknown to this server", retry_after=1.0) from None
