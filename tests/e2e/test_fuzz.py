"""Random requests to every method: no answer is INTERNAL or shows implementation details."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.fulfilment.v1 import query_service_pb2 as fulfilment
from diptych.sagas.v1 import query_service_pb2 as sagas
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contracts.key_ring import KeyRing, Purpose
from contracts.signed_tokens import TokenSigner
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER, QUERY_SERVER
from runtime.grpc import access
from tests.support.builders import fuzz
from tests.support.harness.bearer import Bearer, bearer
from tests.support.harness.contexts import CONTEXTS as COMMANDS
from tests.support.harness.contexts import QUERY_CONTEXTS as QUERIES
from tests.support.harness.log_lines import lines_of
from tests.support.harness.rpc_failure import read_failure

SERVICES = [service for context in COMMANDS for service in context.services]
SERVICES += [context.service for context in QUERIES]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
ELSEWHERE: list[MethodDescriptor] = [
    method
    for protocol in (fulfilment, sagas)
    for method in protocol.DESCRIPTOR.services_by_name["QueryService"].methods
]
"""Methods of the process manager, which test_fulfilment.py runs."""
CLEAR = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "ABORTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
}
PATIENCE = 0.3
"""Deadline of a call in seconds; a call that waits for a token or a change uses all of it."""
LATE = {("UNAVAILABLE", "VIEW_BEHIND"), ("UNAVAILABLE", "VIEW_REBUILDING"), ("DEADLINE_EXCEEDED", "")}
"""Answers to tokens of a later version or of another incarnation of the database."""
TOO_LARGE = ("RESOURCE_EXHAUSTED", "")
"""The answer of gRPC to a message above its size limit."""

metadata = st.sampled_from(
    [()] * 8
    + [
        (("traceparent", "00-zz-yy-xx"),),
        (("diptych-correlation-id", "x" * 129),),
        (("diptych-causation-id", "%00 ;"),),
        (("authorization", "Bearer e30.e30.e30"),),
        (("authorization", "Basic YTpi"),),
    ]
)


@cache
def channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address)


@cache
def anybody(stack: Stack) -> Bearer:
    """Return credentials with all scopes."""
    return bearer(stack, *{access.scope_of(method) for method in (*METHODS, *ELSEWHERE)})


@cache
def signer(stack: Stack) -> TokenSigner:
    """Return the signer of the stack's consistency tokens."""
    ring = KeyRing.parse(Path(stack.settings.keys).read_bytes())
    return TokenSigner(Purpose.CONSISTENCY_TOKENS, lambda: ring)


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


def call(stack: Stack, method: MethodDescriptor, request: bytes, more: Any) -> tuple[str, str]:
    """Return the status of a call and the reason in its ErrorInfo."""
    queried = PROCESS_MANAGER if method in ELSEWHERE else QUERY_SERVER
    kind = COMMAND_SERVER if method.containing_service.name == "CommandService" else queried
    open_channel = channel(stack.of(kind)[0].address)
    made: Any = open_channel.unary_stream if method.server_streaming else open_channel.unary_unary
    who = () if any(key == "authorization" for key, _ in more) else anybody(stack)
    try:
        answer: Any = made(f"/{name_of(method)}", None, None)(
            request, metadata=(*who, *more), timeout=PATIENCE
        )
        if method.server_streaming:
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        refused: Any = error
        return refused.code().name, reason_of(refused)
    return "OK", ""


def reason_of(error: Any) -> str:
    assert "Traceback" not in error.details() and ".py" not in error.details()
    trailers = dict(error.trailing_metadata() or ())
    return read_failure(error).reason if "grpc-status-details-bin" in trailers else ""


some = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
@some
@given(data=st.data())
def test_every_request_is_answered_clearly(stack: Stack, method: MethodDescriptor, data: Any) -> None:
    answered_clearly(stack, method, data)


def answered_clearly(stack: Stack, method: MethodDescriptor, data: Any) -> None:
    """Send a random request; assert that the answer is a success or a documented error."""
    request = data.draw(fuzz.requests(method.input_type, signer(stack).sign))
    status, reason = call(stack, method, request, data.draw(metadata))
    assert (status, reason) in {*LATE, TOO_LARGE} or (status in CLEAR and (reason or status == "OK")), (
        status,
        reason,
    )


@pytest.fixture(scope="module", autouse=True)
def nothing_failed(stack: Stack) -> Iterator[None]:
    """Assert that no call failed, no aggregate was parked and no process ended during the tests."""
    pids = [process.child.process.pid for process in stack.processes]
    yield
    assert [process.child.process.pid for process in stack.processes] == pids
    for log in Path(stack.settings.jwks).parent.glob("*.log"):
        assert lines_of(log, "Call failed") == []
        assert lines_of(log, "Aggregate parked") == []
