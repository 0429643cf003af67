"""Requests are decoded and checked by the rules in their protos before any handler sees them."""

from collections.abc import Iterator

from google.protobuf.message import DecodeError, Message
from protovalidate import FieldPathElementPb, Validator, Violation

from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError

_VALIDATOR = Validator()
_THOROUGH = 4096
"""Bytes up to which a request is told all that is wrong with it; a larger one the first thing only. A hundred
kilobytes of empty list items break so many rules that telling them all takes seconds."""
_MOST_VIOLATIONS = 50


def validate(method: Method, handler: Handler) -> Handler:
    """Decode a request and refuse it if it breaks a rule of its proto, or holds a NUL in a string."""
    decode = method.request.FromString
    check = _VALIDATOR.collect_violations
    check(method.request())  # compiles the rules now rather than in the first call

    async def validated(request: bytes, context: Context) -> object:
        try:
            message = decode(request)
        except DecodeError as error:
            raise RpcError("REQUEST_INVALID", f"not a {method.request.DESCRIPTOR.full_name}") from error
        if violations := check(message, fail_fast=len(request) > _THOROUGH):
            raise _refusal(_by_field(violations))
        if b"\0" in request and (holes := dict.fromkeys(_nuls(message, ""), "holds U+0000")):
            raise _refusal(holes)  # which PostgreSQL cannot store: it would fail the whole batch
        return await handler(message, context)

    return validated


def _refusal(violations: dict[str, str]) -> RpcError:
    message = "; ".join(f"{field}: {text}" if field else text for field, text in violations.items())
    return RpcError("REQUEST_INVALID", message, violations=violations)


def _by_field(violations: list[Violation]) -> dict[str, str]:
    """Return what is wrong by the field's path; several rules that one field breaks are put in a row."""
    found: dict[str, list[str]] = {}
    for violation in violations[:_MOST_VIOLATIONS]:
        proto = violation.proto
        path = "".join(_step(element) for element in proto.field.elements) if proto.field else ""
        found.setdefault(path.removeprefix("."), []).append(proto.message or proto.rule_id)
    return {path: ", ".join(texts) for path, texts in found.items()}


def _step(element: FieldPathElementPb) -> str:
    key = element.subscript
    return f".{element.field_name}" + (f"[{key.value}]" if key else "")


def _nuls(message: Message, path: str) -> Iterator[str]:
    """Yield the path of every string in a message, however deep, that holds a NUL."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        if field.is_repeated:
            pairs = value.items() if hasattr(value, "items") else enumerate(value)
            for key, item in pairs:
                yield from _nuls_in(item, f"{here}[{key}]")
                if isinstance(key, str) and "\0" in key:
                    yield here
        else:
            yield from _nuls_in(value, here)


def _nuls_in(value: object, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield path
    elif isinstance(value, Message):
        yield from _nuls(value, path)
