"""Decodes requests and checks them against the rules in their protos."""

from collections.abc import Iterator
from itertools import islice

from google.protobuf.message import DecodeError, Message
from protovalidate import EvaluationError, FieldPathElementPb, Validator, Violation

from runtime.grpc import times
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.rule_checks import build_check

MAX_REQUEST_BYTES = 256 * 1024
"""The largest valid request, an order of 100 lines of four-byte characters, has 114 kB."""

_VALIDATOR = Validator()
_FULL_CHECK_SIZE = 4096
"""Bytes up to which all violations of a request are collected; the check of a larger request stops at the
first one. A hundred kilobytes of empty list items violate so many rules that a full check takes seconds."""
_MAX_VIOLATIONS = 50


def validate(method: Method, handler: Handler) -> Handler:
    """Decode requests, and reject those that are too large or violate a rule of their proto.

    Requests with a NUL in a string or a Timestamp or Duration out of its range are rejected by every method.
    """
    decode = method.request.FromString
    # Compiles the rules now rather than during the first call.
    _VALIDATOR.collect_violations(method.request())
    is_certainly_valid = build_check(method.request.DESCRIPTOR) or (lambda _: False)
    find_invalid_times = times.build_finder(method.request.DESCRIPTOR)

    async def validate_request(request: bytes, context: Context) -> object:
        if len(request) > MAX_REQUEST_BYTES:
            raise too_large_error(len(request), MAX_REQUEST_BYTES)
        try:
            message = decode(request)
        except DecodeError as error:
            raise RpcError("REQUEST_INVALID", f"not a {method.request.DESCRIPTOR.full_name}") from error
        # Before the rules, which cannot be evaluated for times out of range.
        if find_invalid_times:
            _refuse_fields(find_invalid_times(message, ""), "is no time")
        if not is_certainly_valid(message):
            _refuse_violations(message, fail_fast=len(request) > _FULL_CHECK_SIZE)
        # PostgreSQL cannot store a NUL in text; one such request would fail its whole batch of commands.
        if b"\0" in request:
            _refuse_fields(_find_nuls(message, ""), "holds U+0000")
        return await handler(message, context)

    return validate_request


def too_large_error(size: int, most: int) -> RpcError:
    facts = {"bytes": str(size), "most": str(most)}
    return RpcError("REQUEST_TOO_LARGE", f"more than {most} bytes", facts)


def _refuse_violations(message: Message, fail_fast: bool) -> None:
    try:
        violations = _VALIDATOR.collect_violations(message, fail_fast=fail_fast)
    except EvaluationError as error:  # numbers with which a rule cannot calculate
        raise RpcError("REQUEST_INVALID", f"a rule cannot be evaluated: {error}") from error
    if violations:
        raise _invalid_request(_group_by_field(violations))


def _refuse_fields(paths: Iterator[str], text: str) -> None:
    """Raise the error of the fields with these paths, if there are any."""
    if violations := dict.fromkeys(islice(paths, _MAX_VIOLATIONS), text):
        raise _invalid_request(violations)


def _invalid_request(violations: dict[str, str]) -> RpcError:
    message = "; ".join(f"{field}: {text}" if field else text for field, text in violations.items())
    return RpcError("REQUEST_INVALID", message, violations=violations)


def _group_by_field(violations: list[Violation]) -> dict[str, str]:
    """Return field path to error text; the texts of several violations of one field are joined."""
    texts_by_path: dict[str, list[str]] = {}
    for violation in violations[:_MAX_VIOLATIONS]:
        proto = violation.proto
        path = "".join(_format_element(element) for element in proto.field.elements) if proto.field else ""
        texts_by_path.setdefault(path.removeprefix("."), []).append(proto.message or proto.rule_id)
    return {path: ", ".join(texts) for path, texts in texts_by_path.items()}


def _format_element(element: FieldPathElementPb) -> str:
    key = element.subscript
    return f".{element.field_name}" + (f"[{key.value}]" if key else "")


def _find_nuls(message: Message, path: str) -> Iterator[str]:
    """Yield the path of every string with a NUL in a message and its nested messages."""
    for field, value in message.ListFields():
        field_path = f"{path}.{field.name}" if path else field.name
        if field.is_repeated:
            pairs = value.items() if hasattr(value, "items") else enumerate(value)
            for key, item in pairs:
                yield from _find_nuls_in_value(item, f"{field_path}[{key}]")
                if isinstance(key, str) and "\0" in key:
                    yield field_path
        else:
            yield from _find_nuls_in_value(value, field_path)


def _find_nuls_in_value(value: object, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield path
    elif isinstance(value, Message):
        yield from _find_nuls(value, path)
