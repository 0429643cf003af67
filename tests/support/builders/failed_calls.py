"""Errors as a stub raises them, with the details that the servers send."""

from typing import Any

import grpc
from google.rpc import status_pb2

from runtime.grpc import errors
from runtime.grpc.rpc_error import RpcError


class FailedCall(grpc.RpcError):
    """The error of a call that ended with a status."""

    def __init__(self, code: grpc.StatusCode, message: str = "", details: bytes | None = None) -> None:
        super().__init__(code, message)
        self._code = code
        self._message = message
        self._trailers: Any = () if details is None else (("grpc-status-details-bin", details),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> Any:
        return self._trailers


def failed_call(reason: str, *arguments: Any, **more: Any) -> FailedCall:
    """Return the error of a call that a server ended with an `RpcError` of these arguments."""
    error = RpcError(reason, reason.lower(), *arguments, **more)
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in errors.build_details(error):
        status.details.add().Pack(detail)
    return FailedCall(error.code, error.message, status.SerializeToString())
