"""Errors become statuses with machine-readable details."""

from typing import Any

import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc import StatusCode

from runtime.grpc import errors
from runtime.grpc.rpc_error import STATUS, RpcError


def details(error: RpcError) -> list[Any]:
    return list(errors.build_details(error))


def test_every_reason_of_the_infrastructure_has_an_error_status() -> None:
    assert all(reason == reason.upper() and code is not StatusCode.OK for reason, code in STATUS.items())


def test_an_unknown_reason_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        RpcError("NO_SUCH_REASON", "")


def test_an_error_always_has_an_error_info() -> None:
    (info,) = details(RpcError("VERSION_MISMATCH", "it is at 4", {"version": "4"}))
    assert info == error_details_pb2.ErrorInfo(
        reason="VERSION_MISMATCH", domain="diptych", metadata={"version": "4"}
    )


def test_a_retryable_error_has_a_retry_delay() -> None:
    _, retry = details(RpcError("VIEW_BEHIND", "not yet", retry_after=1.25))
    assert retry.retry_delay == duration_pb2.Duration(seconds=1, nanos=250_000_000)


def test_an_invalid_request_names_its_fields() -> None:
    _, request = details(RpcError("REQUEST_INVALID", "no", violations={"lines[0].sku": "is empty"}))
    assert [(v.field, v.description) for v in request.field_violations] == [("lines[0].sku", "is empty")]


def test_a_broken_rule_has_the_domain_of_its_context() -> None:
    error = RpcError.of_rule("ledger", "CHEQUE_ODD", {"chequeId": "c-1"})
    assert (error.code, error.domain) == (StatusCode.FAILED_PRECONDITION, "ledger.diptych")
    assert error.message == "cheque odd (chequeId=c-1)"


def test_a_missing_record_of_a_context_is_not_found() -> None:
    error = RpcError.not_found("ledger", "CHEQUE_NOT_FOUND", {"chequeId": "c-1"})
    assert (error.code, error.domain) == (StatusCode.NOT_FOUND, "ledger.diptych")
