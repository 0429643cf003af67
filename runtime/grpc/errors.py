"""How a call fails: with a status, an ErrorInfo that programs read, and nothing about our insides."""

from itertools import islice
from typing import NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

log = logs.get_logger(__name__)

# A status travels as headers, of which clients take 8 kB in all; past that they see another error than ours.
# In bytes of UTF-8: every one of them takes three in the header grpc-message, one and a third in the details.
_LONGEST_MESSAGE = 300
_LONGEST_TEXT = 120
_MOST_VIOLATIONS = 10


def answer(_method: Method, handler: Handler) -> Handler:
    """Answer a refusal with its status and details."""

    async def answered(request: object, context: Context) -> object:
        try:
            return await handler(request, context)
        except RpcError as error:
            return await abort(context, error)

    return answered


def contain(method: Method, handler: Handler) -> Handler:
    """Turn whatever nobody foresaw into a refusal `INTERNAL`, logged with its traceback."""

    async def contained(request: object, context: Context) -> object:
        try:
            return await handler(request, context)
        except RpcError:
            raise
        except Exception as error:
            log.exception("A call failed", method=method.path)
            raise RpcError("INTERNAL", "internal error") from error

    return contained


async def abort(context: Context, error: RpcError) -> NoReturn:
    """End a call with a refusal."""
    code: int = error.code.value[0]
    message = _short(error.message, _LONGEST_MESSAGE)
    packed = [_packed(detail) for detail in details(error)]
    status = status_pb2.Status(code=code, message=message, details=packed)
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(error.code, message, (*context.trailing_metadata(), trailer))


def details(error: RpcError) -> list[Message]:
    """Return what programs can read of a refusal: always an ErrorInfo, and what applies of the others."""
    facts = {key: _short(value, _LONGEST_TEXT) for key, value in error.metadata.items()}
    found: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=facts)
    ]
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        found.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        fields = [_violation(*item) for item in islice(error.violations.items(), _MOST_VIOLATIONS)]
        found.append(error_details_pb2.BadRequest(field_violations=fields))
    return found


def _violation(field: str, text: str) -> error_details_pb2.BadRequest.FieldViolation:
    short = _short(field, _LONGEST_TEXT), _short(text, _LONGEST_TEXT)
    return error_details_pb2.BadRequest.FieldViolation(field=short[0], description=short[1])


def _short(text: str, size: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= size else encoded[: size - 3].decode(errors="ignore") + "…"


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
