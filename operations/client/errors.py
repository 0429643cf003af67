"""The errors of calls to the operations server: one line, with a reason, and an exit code."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from operations.client.target import ADDRESS, TOKEN
from runtime.process.start_error import NotAsked, StartError

ANSWERS = {
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
}
"""The statuses of calls that were understood, and whose answer is no."""
DENIALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
FINAL = DENIALS | {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
"""The statuses of calls that would be refused again."""
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""The statuses after which nobody knows whether an act took effect."""


class CallRefused(NotAsked):
    """The server refuses the call, and would refuse it again."""


def describe_error(error: grpc.RpcError, address: str, seconds: float | None, is_act: bool) -> StartError:
    """Return the error of a call as a line.

    Args:
        error: of the call.
        address: of the operations server.
        seconds: the time that the call had; None for any.
        is_act: whether the call may have changed something.
    """
    call: Any = error
    code, details = call.code(), call.details() or ""
    info = _read_error_info(call.trailing_metadata())
    if info is None:
        text = _describe_failure(code, details, address, seconds)
    else:
        further_facts = (
            (key, value)
            for key, value in sorted(info.metadata.items())
            if value not in details and f"{key}=" not in details  # a long value is cut in the metadata
        )
        facts = ", ".join(f"{key}={value}" for key, value in further_facts)
        text = f"{info.reason}: {details}" + (f" ({facts})" if facts else "")
    if code in DENIALS:
        text += f"; the token is that of {TOKEN}"
    if code is grpc.StatusCode.UNIMPLEMENTED and info is not None:
        text += f"; is {address} ({ADDRESS}) an operations server of this release?"
    if is_act and code in LOST and not _was_not_done(details):
        text += "; whether it took effect is unknown"
    if code in ANSWERS and info is not None:
        return StartError(text)
    return CallRefused(text) if code in FINAL else NotAsked(text)


def _describe_failure(code: grpc.StatusCode, details: str, address: str, seconds: float | None) -> str:
    server = f"the operations server at {address} ({ADDRESS})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{server} does not answer within {seconds:g} s"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"{server} cannot be reached: {details.rpartition('last error: ')[2]}"
    return f"{server} answers {code.name}: {details}"


def _was_not_done(details: str) -> bool:
    return details.startswith(("failed to connect", "the act was not done"))


def _read_error_info(trailers: Any) -> error_details_pb2.ErrorInfo | None:
    packed = next((value for key, value in trailers or () if key == "grpc-status-details-bin"), b"")
    info = error_details_pb2.ErrorInfo()
    try:
        details = status_pb2.Status.FromString(packed).details
        return next((info for detail in details if detail.Unpack(info)), None)
    except DecodeError:
        return None
