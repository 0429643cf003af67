"""The line about how a command ended, for every outcome."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from command_server import metrics, observer
from command_server.kernel.batch import Request
from command_server.kernel.decider import RejectionKind
from command_server.kernel.outcomes import (
    Accepted,
    CommandResult,
    DeadlinePassed,
    Outcome,
    OutcomePending,
    Overloaded,
    Rejection,
    RequestIdReused,
)
from command_server.kernel.ports import StoreConflict, StoreUnavailable
from tests.support.harness.log_lines import own_lines


def make_request() -> Request:
    decider = SimpleNamespace(streams=lambda _: ["shop.order.o-1", "shop.stock.s-1"])
    kind = SimpleNamespace(name="shop.v1.PlaceOrder", decider=decider)
    fields = dict.fromkeys(Request.__struct_fields__)
    ids = {"caller": "ada", "request_id": "r-1", "correlation_id": "c-1"}
    return Request(**cast(Any, {**fields, **ids, "kind": kind, "arrived_at": perf_counter() - 1}))


@pytest.fixture(autouse=True)
def no_measurements() -> None:
    metrics.COMMANDS_PROCESSED.clear()


async def log_end(outcome: Outcome | BaseException) -> dict[str, Any]:
    async def execute(_request: Request) -> CommandResult:
        if isinstance(outcome, BaseException):
            raise outcome
        return CommandResult(outcome, "incarnation")

    with own_lines() as lines:
        try:
            await observer.instrument(execute)(make_request())
        except BaseException as error:
            assert error is outcome
    start, end = lines.all()
    assert (start["message"], end["message"]) == ("Processing command", "Command processed")
    for line in (start, end):
        assert (line["commandId"], line["commandType"]) == ("r-1", "shop.v1.PlaceOrder")
        assert (line["userId"], line["correlationId"]) == ("ada", "c-1")
    assert 1_000 <= end["duration"] < 60_000, "milliseconds"
    return end


async def test_an_accepted_command_is_logged_with_its_stream_and_version() -> None:
    end = await log_end(Accepted({"shop.order.o-1": 7, "shop.stock.s-1": 3}, datetime.now(UTC)))
    assert (end["outcome"], end["reason"], end["level"]) == ("accepted", None, "info")
    assert (end["stream"], end["version"]) == ("shop.order.o-1", 7)
    assert metrics.COMMANDS_PROCESSED.sums == {("shop.v1.PlaceOrder", True, "accepted", None): 1}


async def test_a_rejected_command_is_logged_with_its_reason() -> None:
    end = await log_end(Rejection("ORDER_STATE", RejectionKind.RULE))
    assert (end["outcome"], end["reason"], end["level"]) == ("rejected", "ORDER_STATE", "info")
    assert metrics.COMMANDS_PROCESSED.sums == {("shop.v1.PlaceOrder", True, "rejected", "ORDER_STATE"): 1}
    assert (end["stream"], end["version"]) == ("shop.order.o-1", None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DeadlinePassed(), "DEADLINE_PASSED"),
        (Overloaded(), "OVERLOADED"),
        (OutcomePending(1.0), "OUTCOME_PENDING"),
        (StoreUnavailable(), "WRITE_MODEL_UNAVAILABLE"),
        (StoreConflict(), "WRITE_MODEL_UNAVAILABLE"),
        (KeyError("bug"), "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED"),
    ],
)
async def test_a_failed_command_is_logged_with_the_reason_that_its_caller_gets(
    error: BaseException, reason: str
) -> None:
    end = await log_end(error)
    assert (end["outcome"], end["reason"], end["level"]) == ("failed", reason, "warning")
    assert end["stream"] == "shop.order.o-1"
    assert metrics.COMMANDS_PROCESSED.sums == {("shop.v1.PlaceOrder", False, "failed", reason): 1}


async def test_a_command_with_a_reused_request_id_is_rejected_and_no_failure() -> None:
    end = await log_end(RequestIdReused())
    assert (end["outcome"], end["reason"], end["level"]) == ("rejected", "REQUEST_ID_REUSED", "info")
    assert metrics.COMMANDS_PROCESSED.sums == {
        ("shop.v1.PlaceOrder", True, "rejected", "REQUEST_ID_REUSED"): 1
    }


async def test_reasons_without_end_make_a_bounded_number_of_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "MAX_REASONS", len(observer._reasons) + 2)
    for number in range(5):
        assert (await log_end(Rejection(f"MADE_UP_{number}", RejectionKind.RULE)))["reason"]
    reasons = Counter({reason: count for (*_, reason), count in metrics.COMMANDS_PROCESSED.sums.items()})
    assert reasons == {"MADE_UP_0": 1, "MADE_UP_1": 1, "OTHER": 3}
