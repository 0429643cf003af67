"""Kernel requests, by default to the ledger context."""

from hashlib import sha256
from time import perf_counter
from typing import Any
from uuid import uuid4

from command_server.kernel.batch import Request
from command_server.kernel.context import CommandType, aggregate_types, command_types
from command_server.kernel.group_commit import GroupCommit
from command_server.kernel.ports import EventStore
from tests.support.ledger.rules import CONTEXT

KINDS = {name.rpartition(".")[2]: kind for name, kind in command_types(CONTEXT).items()}
AGGREGATES = aggregate_types((CONTEXT,))


def request(
    command: Any,
    *,
    caller: str = "alice",
    request_id: str | None = None,
    content: bytes | None = None,
    expected_version: int | None = None,
    deadline: float | None = None,
    kind: CommandType | None = None,
    owners: frozenset[str] | None = None,
) -> Request:
    return Request(
        kind=kind or KINDS[type(command).__name__],
        command=command,
        caller=caller,
        request_id=request_id or str(uuid4()),
        digest=sha256(content or repr(command).encode()).digest(),
        expected_version=expected_version,
        on_behalf_of=None,
        correlation_id="correlation",
        causation_id=None,
        traceparent=None,
        arrived_at=perf_counter(),
        deadline=deadline,
        owners=owners,
    )


def group_commit(store: EventStore, **options: Any) -> GroupCommit:
    return GroupCommit(store, AGGREGATES, **options)
