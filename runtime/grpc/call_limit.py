"""Bounds the calls of one kind that are in progress, so that one caller cannot use up a server."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.grpc import caller, metrics
from runtime.grpc.rpc_error import RpcError

RETRY_AFTER = 1.0
"""Seconds after which a refused call may find a place."""


class CallLimit:
    """The places for calls of one kind.

    Args:
        reason: of the error of a call that finds no place; its status is RESOURCE_EXHAUSTED.
        kind: of the calls, in the plural, for the error.
        per_caller: places of one caller; 0 for no limit.
        in_all: places of all callers together; 0 for no limit.
    """

    def __init__(self, reason: str, kind: str, per_caller: int, in_all: int) -> None:
        self._reason = reason
        self._kind = kind
        self._per_caller = per_caller
        self._in_all = in_all
        self._taken: Counter[str] = Counter()
        self.taken = 0
        """The places that are taken."""

    @contextmanager
    def take_place(self) -> Iterator[None]:
        """Take a place while the context is open.

        Raises:
            RpcError: the caller, or all callers together, have no place left.
        """
        current_caller = caller.current_or_none()
        subject = current_caller.subject if current_caller else ""
        if 0 < self._per_caller <= self._taken[subject]:
            raise self._create_error("one caller", self._per_caller)
        if 0 < self._in_all <= self.taken:
            raise self._create_error("all callers", self._in_all)
        self._taken[subject] += 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._taken[subject] -= 1
            if not self._taken[subject]:
                del self._taken[subject]

    def _create_error(self, whose: str, maximum: int) -> RpcError:
        metrics.CALLS_SHED.count(self._kind)
        message = f"this server has {maximum} {self._kind} of {whose}, which is its limit"
        return RpcError(
            self._reason, message, {"of": whose, "maximum": str(maximum)}, retry_after=RETRY_AFTER
        )
