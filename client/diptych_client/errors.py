"""The errors of a call: a rejection with its reason and facts, or an unknown outcome."""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2


class Rejection(Exception):
    """The error with which a call was answered, from its gRPC status and details.

    Attributes:
        code: the gRPC status.
        reason: the value to switch on, for instance `ORDER_NOT_FOUND`; empty if gRPC itself ended the call.
        domain: `diptych`, or `<context>.diptych` for a rule of a context; empty if there is no reason.
        message: text for people.
        metadata: the facts behind the reason, for instance `{"orderId": "o-1"}`.
        retry_after: seconds after which a retry makes sense, or None.
        violations: the invalid fields of the request, each with the error.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        domain: str = "",
        message: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Mapping[str, str] | None = None,
    ) -> None:
        self.code = code
        self.reason = reason
        self.domain = domain
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = dict(violations or {})
        # The arguments, so that a rejection can be pickled.
        super().__init__(code, reason, domain, message, self.metadata, retry_after, self.violations)

    def __str__(self) -> str:
        title = f"{self.code.name} {self.reason}".rstrip()
        fields = "".join(f"; {field}: {text}" for field, text in self.violations.items())
        return f"{title}: {self.message}{fields}"

    @classmethod
    def from_error(cls, error: grpc.RpcError) -> "Rejection":
        """Return the rejection in an error of a stub, of grpc or grpc.aio; its cause is the error."""
        call: Any = error
        status = _read_status(call.trailing_metadata())
        info = _find_detail(status, error_details_pb2.ErrorInfo())
        retry = _find_detail(status, error_details_pb2.RetryInfo())
        request = _find_detail(status, error_details_pb2.BadRequest())
        fields = request.field_violations if request else ()
        rejection = cls(
            code=call.code(),
            reason=info.reason if info else "",
            domain=info.domain if info else "",
            message=call.details() or "",
            metadata=info.metadata if info else None,
            retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
            violations={field.field: field.description for field in fields},
        )
        rejection.__cause__ = error
        return rejection


class OutcomeUnknown(Exception):
    """No answer to a command arrived in time: it took effect once, or not at all.

    Send the same request under this request id again, now or after a restart, to learn the outcome.

    Attributes:
        request_id: the request id of the command.
        rejection: the error of the last attempt.
    """

    def __init__(self, request_id: str, rejection: Rejection) -> None:
        super().__init__(request_id, rejection)
        self.request_id = request_id
        self.rejection = rejection

    def __str__(self) -> str:
        return f"request id {self.request_id}: {self.rejection}"


def _read_status(trailers: Any) -> Any:
    """Return the status in a call's trailing metadata; an empty one if there is none that can be read."""
    details = next((value for key, value in trailers or () if key == "grpc-status-details-bin"), b"")
    try:
        return status_pb2.Status.FromString(details)
    except DecodeError:
        return status_pb2.Status()


def _find_detail(status: Any, target: Message) -> Any:
    """Unpack the status's detail of the target's type into the target; return None if there is none."""
    try:
        return next((target for detail in status.details if detail.Unpack(target)), None)
    except DecodeError:
        return None
