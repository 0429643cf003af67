"""Rejections are made from the details that the servers send, and from errors without any."""

import pickle

import grpc
import pytest
from diptych_client import OutcomeUnknown, Rejection
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders.failed_calls import FailedCall, failed_call

TEXT = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=30)


@given(
    metadata=st.dictionaries(TEXT, TEXT, max_size=4),
    retry_after=st.none() | st.integers(0, 10**6).map(lambda millis: millis / 1000),
    violations=st.dictionaries(TEXT, TEXT, max_size=4),
    domain=st.sampled_from(["diptych", "ledger.diptych"]),
)
def test_a_rejection_has_everything_that_the_server_sent(
    metadata: dict[str, str], retry_after: float | None, violations: dict[str, str], domain: str
) -> None:
    error = failed_call(
        "REQUEST_INVALID", metadata, retry_after=retry_after, violations=violations, domain=domain
    )
    rejection = Rejection.from_error(error)
    assert (rejection.code, rejection.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    assert (rejection.domain, rejection.message) == (domain, "request_invalid")
    assert (rejection.metadata, rejection.violations) == (metadata, violations)
    assert rejection.retry_after == (None if retry_after is None else pytest.approx(retry_after, abs=1e-6))
    assert rejection.__cause__ is error


@pytest.mark.parametrize(
    "details",
    [
        None,
        b"",
        b"\xff not a status",
        status_pb2.Status(
            details=[{"type_url": "type.googleapis.com/google.rpc.ErrorInfo", "value": b"\xff"}]
        ).SerializeToString(),
        status_pb2.Status(details=[{"type_url": "type.googleapis.com/unknown"}]).SerializeToString(),
    ],
)
def test_an_error_without_readable_details_has_its_status(details: bytes | None) -> None:
    rejection = Rejection.from_error(FailedCall(grpc.StatusCode.UNAVAILABLE, "no route", details))
    assert (rejection.code, rejection.message) == (grpc.StatusCode.UNAVAILABLE, "no route")
    assert (rejection.reason, rejection.domain, rejection.metadata) == ("", "", {})
    assert (rejection.retry_after, rejection.violations) == (None, {})


def test_the_text_of_an_error_names_reason_fields_and_request_id() -> None:
    rejection = Rejection.from_error(failed_call("REQUEST_INVALID", violations={"lines": "is empty"}))
    assert str(rejection) == "INVALID_ARGUMENT REQUEST_INVALID: request_invalid; lines: is empty"
    assert str(OutcomeUnknown("r-1", rejection)) == f"request id r-1: {rejection}"


def test_errors_can_be_pickled() -> None:
    rejection = Rejection.from_error(failed_call("REQUEST_INVALID", {"a": "b"}, violations={"c": "d"}))
    unknown = pickle.loads(pickle.dumps(OutcomeUnknown("r-1", rejection)))
    assert (unknown.request_id, vars(unknown.rejection)) == ("r-1", vars(rejection))
