"""The line about how a command ended, for every outcome."""

import asyncio
from datetime import UTC, datetime
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from command_server import observer
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


async def test_a_rejected_command_is_logged_with_its_reason() -> None:
    end = await log_end(Rejection("ORDER_STATE", RejectionKind.RULE))
    assert (end["outcome"], end["reason"], end["level"]) == ("rejected", "ORDER_STATE", "info")
    assert (end["stream"], end["version"]) == ("shop.order.o-1", None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RequestIdReused(), "REQUEST_ID_REUSED"),
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
