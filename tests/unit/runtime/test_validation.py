"""Requests are decoded and checked before they reach a handler."""

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf import struct_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from runtime.grpc.method import Method
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.validation import MAX_REQUEST_BYTES, validate
from tests.support.builders.access_rules import any_object
from tests.support.ledger.stubs import commands, queries


async def handler(request: Any, context: Any) -> Any:
    return request


async def check(request: Message) -> Any:
    method = Method(path="/test/Do", request=type(request), rule=any_object("test.do"), streams=False)
    return await validate(method, handler)(request.SerializeToString(), None)  # type: ignore[arg-type]


async def violations(request: Message) -> dict[str, str]:
    with pytest.raises(RpcError) as caught:
        await check(request)
    assert caught.value.reason == "REQUEST_INVALID"
    return caught.value.violations


def distribute() -> Any:
    shares = [commands.Share(payee_id=f"a-{n}", amount=3) for n in range(3)]
    memo = commands.Memo(title="Rent", lines=["January", "Back door"])
    return commands.DistributeRequest(request_id=str(uuid4()), account_id="a-9", shares=shares, memo=memo)


async def test_a_valid_request_reaches_the_handler_as_a_message() -> None:
    request = distribute()
    assert await check(request) == request


async def test_a_violation_names_its_field_however_deep() -> None:
    request = distribute()
    request.shares[1].payee_id = ""
    request.memo.lines[1] = ""
    assert set(await violations(request)) == {"shares[1].payee_id", "memo.lines[1]"}


async def test_a_request_that_is_too_large_is_refused_with_its_size() -> None:
    request = distribute()
    request.memo.title = "x" * MAX_REQUEST_BYTES
    with pytest.raises(RpcError) as caught:
        await check(request)
    assert caught.value.reason == "REQUEST_TOO_LARGE"
    assert caught.value.metadata == {"bytes": str(request.ByteSize()), "most": str(MAX_REQUEST_BYTES)}


async def test_a_violated_cel_rule_is_reported_with_its_message() -> None:
    request = distribute()
    request.shares[2].amount = -1
    assert await violations(request) == {"shares[2].amount": "must not be negative"}


@pytest.mark.parametrize(
    ("path", "spoil"),
    [
        ("memo.title", lambda request: setattr(request.memo, "title", "T\0")),
        ("memo.lines[1]", lambda request: request.memo.lines.__setitem__(1, "a\0b")),
    ],
)
async def test_a_nul_is_rejected_in_nested_and_repeated_strings(path: str, spoil: Any) -> None:
    request = distribute()
    spoil(request)
    assert await violations(request) == {path: "holds U+0000"}


async def test_a_nul_is_rejected_in_the_keys_and_values_of_maps() -> None:
    request = struct_pb2.Struct()
    request["good"] = "bad\0"
    assert await violations(request) == {"fields[good].string_value": "holds U+0000"}
    request = struct_pb2.Struct()
    request["b\0d"] = "good"
    assert await violations(request) == {"fields": "holds U+0000"}


async def test_a_zero_byte_outside_of_strings_is_accepted() -> None:
    request = commands.EndorseChequeRequest(request_id=str(uuid4()), cheque_id="c-1", expected_version=0)
    assert b"\0" in request.SerializeToString()
    assert await check(request) == request


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(113, -1), (113, 10**9), (253_402_300_800, 0), (-62_135_596_801, 0), (2**62, 0)]
)
async def test_a_timestamp_that_is_no_time_names_its_field(seconds: int, nanos: int) -> None:
    request = queries.ListChequesRequest(written_from=Timestamp(seconds=seconds, nanos=nanos))
    assert await violations(request) == {"written_from": "is no time"}


@pytest.mark.parametrize(("seconds", "nanos"), [(253_402_300_799, 999_999_999), (-62_135_596_800, 0)])
async def test_the_first_and_the_last_timestamp_are_times(seconds: int, nanos: int) -> None:
    request = queries.ListChequesRequest(written_from=Timestamp(seconds=seconds, nanos=nanos))
    assert await check(request) == request
