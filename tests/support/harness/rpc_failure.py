"""The error of a failed call, as a client sees it."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from diptych_client import Rejection
from google.rpc import error_details_pb2, status_pb2


async def rpc_failure(call: Awaitable[Any]) -> Rejection:
    """Await a call that must fail, and return its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_failure(caught.value)


def read_failure(error: grpc.RpcError) -> Rejection:
    """Return the error of a call that a server of this system rejected; its details must be complete."""
    call: Any = error
    trailers: dict[str, Any] = dict(call.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (call.code().value[0], call.details())
    assert status.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    rejection = Rejection.from_error(error)
    assert rejection.reason and rejection.domain
    return rejection


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason in an error's ErrorInfo; empty if there is none."""
    return Rejection.from_error(error).reason
