"""How a call fails: with a status, an ErrorInfo that programs read, and nothing about our insides."""

from typing import NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from runtime import logs
from runtime.errors import Refusal
from runtime.grpc.method import Context, Handler, Method

log = logs.get("grpc")


def answer(_method: Method, handler: Handler) -> Handler:
    """Answer a refusal with its status and details."""

    async def answered(request: object, context: Context) -> object:
        try:
            return await handler(request, context)
        except Refusal as refusal:
            return await abort(context, refusal)

    return answered


def contain(method: Method, handler: Handler) -> Handler:
    """Turn whatever nobody foresaw into a refusal `INTERNAL`, logged with its traceback."""

    async def contained(request: object, context: Context) -> object:
        try:
            return await handler(request, context)
        except Refusal:
            raise
        except Exception as error:
            log.exception("A call failed", method=method.path)
            raise Refusal("INTERNAL", "internal error") from error

    return contained


async def abort(context: Context, refusal: Refusal) -> NoReturn:
    """End a call with a refusal."""
    code: int = refusal.code.value[0]
    details = [_packed(detail) for detail in _details(refusal)]
    status = status_pb2.Status(code=code, message=refusal.message, details=details)
    trailer = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(refusal.code, refusal.message, (*context.trailing_metadata(), trailer))


def _details(refusal: Refusal) -> list[Message]:
    info = error_details_pb2.ErrorInfo(
        reason=refusal.reason, domain=refusal.domain, metadata=refusal.metadata
    )
    details: list[Message] = [info]
    if refusal.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(refusal.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if refusal.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = [violation(field=field, description=text) for field, text in refusal.violations.items()]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
