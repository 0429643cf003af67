"""The error of a failed call, decoded from the binary details of its status."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class RpcFailure:
    """The status and details of a failed call."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: dict[str, str]
    retry_after: float | None
    violations: dict[str, str]


async def rpc_failure(call: Awaitable[Any]) -> RpcFailure:
    """Await a call that must fail, and return its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = _find_detail(status, error_details_pb2.ErrorInfo())
    assert info is not None, "every error has an ErrorInfo"
    retry = _find_detail(status, error_details_pb2.RetryInfo())
    request = _find_detail(status, error_details_pb2.BadRequest())
    return RpcFailure(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        violations={v.field: v.description for v in request.field_violations} if request else {},
    )


def _find_detail(status: Any, target: Message) -> Any:
    """Unpack the status's detail of the target's type into the target; return None if there is none."""
    for detail in status.details:
        if detail.Unpack(target):
            return target
    return None


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in an error's ErrorInfo; empty if there is none."""
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info = _find_detail(status, error_details_pb2.ErrorInfo())
    return str(info.reason) if info is not None else ""
