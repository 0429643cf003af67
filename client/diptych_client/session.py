"""State that the calls of a connection share, and the preparation of their requests; no input or output."""

import threading
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

from diptych.consistency.v1.consistency_pb2 import Receipt
from google.protobuf.message import Message

from diptych_client import trace_context
from diptych_client.request_ids import new_request_id
from diptych_client.retry_budget import RetryBudget

Fresh = Receipt | str | Literal[True] | None
"""The commands that a response must include: a receipt's, a consistency token's, those up to the last receipt
(True), or none in particular."""

Metadata = Sequence[tuple[str, str]]
"""Pairs of key and value."""

Request = TypeVar("Request", bound=Message)


class CommandResponse(Protocol):
    """The response of a command."""

    @property
    def receipt(self) -> Receipt: ...


class WatchResponse(Protocol):
    """A response of a watch."""

    resume_token: str


class LastReceipt:
    """The last receipt, shared by the connections that follow each other and by their threads."""

    def __init__(self) -> None:
        self._receipt = Receipt()
        self._lock = threading.Lock()

    @property
    def consistency_token(self) -> str:
        """Its token; empty if there was no receipt."""
        return self._receipt.consistency_token

    def record(self, receipt: Receipt) -> None:
        """Record a receipt, unless it is of an earlier version of the same aggregate.

        Answers to concurrent commands arrive in any order, and a repeated command gets its old receipt.
        """
        with self._lock:
            if not _is_older(receipt, self._receipt):
                self._receipt = receipt


def _is_older(receipt: Receipt, other: Receipt) -> bool:
    # Two aggregates of different types may have one id; the times tell them apart in nearly every case.
    times = [(each.record_time.seconds, each.record_time.nanos) for each in (receipt, other)]
    is_same = receipt.aggregate_id == other.aggregate_id
    return is_same and receipt.version < other.version and times[0] <= times[1]


class Session:
    """The state that the calls of a connection share.

    Args:
        budget: the limit of retries.
        last_receipt: shared with the connection that this one follows.
    """

    def __init__(self, budget: RetryBudget | None, last_receipt: LastReceipt | None) -> None:
        self.budget = budget or RetryBudget()
        self.last_receipt = last_receipt or LastReceipt()

    def include(self, request: Request, fresh: Fresh) -> Request:
        """Return the query with a consistency token; the query itself if there is none to add."""
        if fresh is True:
            fresh = self.last_receipt.consistency_token
        token = fresh.consistency_token if isinstance(fresh, Receipt) else fresh
        return copy_with(request, at_least_as_fresh=token) if token else request


def identify(command: Request) -> tuple[Request, str]:
    """Return the command with a request id, and the id.

    A command without one is copied, because the same message sent again without an id is another intention.
    """
    fields: Any = command
    if fields.request_id:
        return command, fields.request_id
    request_id = new_request_id()
    return copy_with(command, request_id=request_id), request_id


def build_metadata(access_token: str, metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Return a call's metadata: the caller's own, the access token, and the current trace context."""
    authorization = (("authorization", f"Bearer {access_token}"),) if access_token else ()
    return (*metadata, *authorization, *trace_context.read())


def copy_with(request: Request, **fields: str) -> Request:
    """Return a copy of a request with other values of some fields."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy
