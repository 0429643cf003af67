"""Failed calls: every error becomes a gRPC status with an ErrorInfo, and internal details stay private."""

from itertools import islice
from typing import NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

log = logs.get_logger(__name__)

# A status is sent as headers. Clients accept 8 kB of headers in all and report another error beyond that.
# Lengths are in bytes of UTF-8, each of which takes three bytes in the header grpc-message and four thirds
# in the details.
_MAX_MESSAGE_LENGTH = 300
_MAX_TEXT_LENGTH = 120
_MAX_VIOLATIONS = 10


def send_error(_method: Method, handler: Handler) -> Handler:
    """Turn an `RpcError` into the status of the call, with details."""

    async def wrapper(request: object, context: Context) -> object:
        try:
            return await handler(request, context)
        except RpcError as error:
            return await abort(context, error)

    return wrapper


def contain_exceptions(method: Method, handler: Handler) -> Handler:
    """Log any exception other than an `RpcError`, and replace it with the error `INTERNAL`."""

    failures = logs.LimitedErrors(log, "Call failed", level="exception", method=method.path)

    async def wrapper(request: object, context: Context) -> object:
        try:
            return await handler(request, context)
        except RpcError:
            raise
        except Exception as error:
            failures.report()
            raise RpcError("INTERNAL", "internal error") from error

    return wrapper


async def abort(context: Context, error: RpcError) -> NoReturn:
    """End a call with an error."""
    code: int = error.code.value[0]
    message = _truncate(error.message, _MAX_MESSAGE_LENGTH)
    packed = [_pack(detail) for detail in build_details(error)]
    status = status_pb2.Status(code=code, message=message, details=packed)
    trailers = [("grpc-status-details-bin", status.SerializeToString())]
    if error.retry_after is not None:  # the RetryInfo, for gRPC's own retries
        trailers.append(("grpc-retry-pushback-ms", str(int(error.retry_after * 1000))))
    await context.abort(error.code, message, (*context.trailing_metadata(), *trailers))


def build_details(error: RpcError) -> list[Message]:
    """Return an error's machine-readable details: an ErrorInfo; RetryInfo and BadRequest if they apply."""
    facts = {key: _truncate(value, _MAX_TEXT_LENGTH) for key, value in error.metadata.items()}
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=facts)
    ]
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        fields = [_build_violation(*item) for item in islice(error.violations.items(), _MAX_VIOLATIONS)]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    return details


def _build_violation(field: str, text: str) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(
        field=_truncate(field, _MAX_TEXT_LENGTH), description=_truncate(text, _MAX_TEXT_LENGTH)
    )


def _truncate(text: str, size: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= size else encoded[: size - 3].decode(errors="ignore") + "…"


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
