"""The error of a failed call, as a client sees it."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from diptych_client import Rejection
from google.rpc import status_pb2


async def rpc_failure(call: Awaitable[Any]) -> Rejection:
    """Await a call that must fail, and return its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    rejection = Rejection.from_error(error)
    assert rejection.reason, "every error has an ErrorInfo"
    return rejection


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason in an error's ErrorInfo; empty if there is none."""
    return Rejection.from_error(error).reason
