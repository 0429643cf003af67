"""Random requests to every method: no answer is INTERNAL or shows implementation details."""

import asyncio
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.sagas.v1 import query_service_pb2 as sagas
from diptych_client import Rejection
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contracts.key_ring import KeyRing, Purpose
from contracts.signed_tokens import TokenSigner
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER, QUERY_SERVER
from runtime.grpc import access
from tests.support.builders import fuzz
from tests.support.builders.hostile_fields import HostileRequest, hostile_requests
from tests.support.harness.bearer import Bearer, bearer
from tests.support.harness.contexts import CONTEXTS as COMMANDS
from tests.support.harness.contexts import QUERY_CONTEXTS as QUERIES
from tests.support.harness.log_lines import lines_of
from tests.support.harness.rpc_failure import read_failure

SERVICES = [service for context in COMMANDS for service in context.services]
SERVICES += [context.service for context in QUERIES]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
ELSEWHERE: list[MethodDescriptor] = list(sagas.DESCRIPTOR.services_by_name["QueryService"].methods)
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
LONG_PATIENCE = 10.0
"""The same of calls that nothing delays but the load of other calls."""
CALLS_AT_ONCE = 24
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
    return bearer(stack, *{scope for method in (*METHODS, *ELSEWHERE) for scope in access.scopes_of(method)})


@cache
def signer(stack: Stack) -> TokenSigner:
    """Return the signer of the stack's consistency tokens."""
    ring = KeyRing.parse(Path(stack.settings.keys).read_bytes())
    return TokenSigner(Purpose.CONSISTENCY_TOKENS, lambda: ring)


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


def address_of(stack: Stack, method: MethodDescriptor) -> str:
    """Return the address of a server with this method."""
    queried = PROCESS_MANAGER if method in ELSEWHERE else QUERY_SERVER
    kind = COMMAND_SERVER if method.containing_service.name == "CommandService" else queried
    return stack.of(kind)[0].address


def call(stack: Stack, method: MethodDescriptor, request: bytes, more: Any) -> tuple[str, str]:
    """Return the status of a call and the reason in its ErrorInfo."""
    open_channel = channel(address_of(stack, method))
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
    max_examples=15,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
@some
@given(data=st.data())
def test_every_request_is_answered_clearly(stack: Stack, method: MethodDescriptor, data: Any) -> None:
    answered_clearly(stack, method, data)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS, ids=name_of)
@settings(some, max_examples=150)
@given(data=st.data())
def test_many_more_requests_are_answered_clearly(stack: Stack, method: MethodDescriptor, data: Any) -> None:
    answered_clearly(stack, method, data)


def answered_clearly(stack: Stack, method: MethodDescriptor, data: Any) -> None:
    """Send a random request; assert that the answer is a success or a documented error."""
    request = data.draw(fuzz.requests(method.input_type, signer(stack).sign))
    status, reason = call(stack, method, request, data.draw(metadata))
    assert (status, reason) in {*LATE, TOO_LARGE} or (status in CLEAR and (reason or status == "OK")), (
        status,
        reason,
    )


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
async def test_every_value_of_every_field_is_answered_clearly(
    stack: Stack, service: ServiceDescriptor
) -> None:
    await fields_answered_clearly(stack, service.methods)


async def fields_answered_clearly(stack: Stack, methods: Iterable[MethodDescriptor]) -> None:
    """Send methods each hostile value of each field; assert that each is answered by a documented error."""
    places = asyncio.Semaphore(CALLS_AT_ONCE)
    unclear: list[str] = []

    async def send(method: MethodDescriptor, request: HostileRequest) -> None:
        async with places:
            code, rejection = await call_async(stack, method, request.request)
        answer = (code, rejection.reason if rejection else "")
        if request.is_invalid_time:
            paths = rejection.violations.keys() & {request.path, f"{request.path}[0]"} if rejection else ()
            is_clear = code == "INVALID_ARGUMENT" and bool(paths)
        elif request.is_made_up_token:
            is_clear = answer[1] in ("PAGE_TOKEN_INVALID", "REQUEST_INVALID")
        else:
            is_clear = answer in {*LATE, TOO_LARGE} or (code in CLEAR and bool(answer[1] or code == "OK"))
        if not is_clear:
            unclear.append(f"{name_of(method)} {request.path}={request.value}: {answer}")

    requests = [(method, each) for method in methods for each in hostile_requests(method.input_type)]
    await asyncio.gather(*(send(*each) for each in requests))
    assert not unclear, unclear[:20]


async def call_async(stack: Stack, method: MethodDescriptor, request: bytes) -> tuple[str, Rejection | None]:
    """Return the status of a call, and its error."""
    async with grpc.aio.insecure_channel(address_of(stack, method)) as channel:
        made: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        timeout = PATIENCE if method.server_streaming else LONG_PATIENCE
        answer: Any = made(f"/{name_of(method)}")(request, metadata=anybody(stack), timeout=timeout)
        try:
            await (anext(aiter(answer)) if method.server_streaming else answer)
        except grpc.aio.AioRpcError as error:
            return error.code().name, Rejection.from_error(error)
        except StopAsyncIteration:
            pass
        return "OK", None


@pytest.fixture(scope="module", autouse=True)
def nothing_failed(stack: Stack) -> Iterator[None]:
    """Assert that no call failed, no aggregate was parked and no process ended during the tests."""
    pids = [process.child.process.pid for process in stack.processes]
    yield
    assert [process.child.process.pid for process in stack.processes] == pids
    for log in Path(stack.settings.jwks).parent.glob("*.log"):
        assert lines_of(log, "Call failed") == []
        assert lines_of(log, "Aggregate parked") == []
