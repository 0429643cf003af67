"""Refusals become statuses that programs can read."""

from typing import Any

import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc import StatusCode

from runtime.grpc import errors
from runtime.grpc.rpc_error import RULE_STATUS, STATUS, Refusal


def details(refusal: Refusal) -> list[Any]:
    return list(errors.details(refusal))


def test_every_reason_of_the_plumbing_has_a_status_that_is_no_success() -> None:
    assert all(reason == reason.upper() and code is not StatusCode.OK for reason, code in STATUS.items())


def test_an_unknown_reason_is_a_mistake_of_ours_and_not_a_status() -> None:
    with pytest.raises(KeyError):
        Refusal("NO_SUCH_REASON", "")


def test_a_refusal_always_has_an_error_info() -> None:
    (info,) = details(Refusal("VERSION_MISMATCH", "it is at 4", {"version": "4"}))
    assert info == error_details_pb2.ErrorInfo(
        reason="VERSION_MISMATCH", domain="diptych", metadata={"version": "4"}
    )


def test_a_refusal_that_may_be_retried_says_when() -> None:
    _, retry = details(Refusal("VIEW_BEHIND", "not yet", retry_after=1.25))
    assert retry.retry_delay == duration_pb2.Duration(seconds=1, nanos=250_000_000)


def test_an_invalid_request_names_its_fields() -> None:
    _, request = details(Refusal("REQUEST_INVALID", "no", violations={"lines[0].sku": "is empty"}))
    assert [(v.field, v.description) for v in request.field_violations] == [("lines[0].sku", "is empty")]


@pytest.mark.parametrize("kind", RULE_STATUS)
def test_a_broken_rule_of_a_context_has_the_status_of_its_kind_and_the_domain_of_its_context(
    kind: str,
) -> None:
    refusal = Refusal.of_rule("ordering", "ORDER_ODD", {"orderId": "o-1"}, kind=kind)
    assert (refusal.code, refusal.domain) == (RULE_STATUS[kind], "ordering.diptych")
    assert refusal.message == "order odd (orderId=o-1)"
