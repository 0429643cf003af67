"""The spans of commands, and of the transactions that they share."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs
from opentelemetry.trace import SpanKind

from command_server.kernel.batch import Request
from command_server.kernel.ports import Changes, EventStore, StoreFailed
from command_server.traces import CommandTraces
from runtime.telemetry import trace_context, tracing
from tests.support.builders.requests import group_commit, request
from tests.support.harness.memory_event_store import MemoryEventStore, MemoryTransaction
from tests.support.harness.recorded_spans import RecordedSpans, id_of, spans
from tests.support.ledger.rules.messages import CashCheque, Deposit

__all__ = ["spans"]


def trace_of(number: int, flags: str = "01") -> str:
    return f"00-{number:032x}-{number:016x}-{flags}"


async def run(store: EventStore, calls: Sequence[tuple[Request, str]]) -> list[Any]:
    """Execute requests in one batch, each in a call of a trace; return the results and errors."""
    traces = CommandTraces()
    commits = group_commit(traces.trace_transactions(store))
    execute = traces.trace_commands(commits.execute)

    async def call(each: Request, parent: str) -> Any:
        if (unsampled := tracing.begin(parent)) is not None:
            return await execute(structs.replace(each, traceparent=unsampled))
        with tracing.begin_span("call", kind=SpanKind.SERVER, parent=parent, attributes={}):
            return await execute(structs.replace(each, traceparent=trace_context.get_current()))

    pending = asyncio.gather(*(call(*each) for each in calls), return_exceptions=True)
    await asyncio.sleep(0)
    commits.close()
    await commits.run()
    results = await pending
    assert traces._running == {}
    return results


async def test_the_span_of_a_command_has_its_outcome(spans: RecordedSpans) -> None:
    deposit, cash = request(Deposit("a", 5)), request(CashCheque("none"))
    await run(MemoryEventStore(), [(deposit, trace_of(1)), (cash, trace_of(2))])
    accepted, rejected = (dict(span.attributes or {}) for span in spans.find("call"))
    assert accepted == {
        "diptych.command": "acme.ledger.v1.Deposit",
        "diptych.request_id": deposit.request_id,
        "diptych.correlation_id": "correlation",
        "diptych.stream": "ledger.account.a",
        "diptych.outcome": "accepted",
        "diptych.version": 1,
    }
    assert rejected["diptych.outcome"] == "rejected"
    assert (rejected["diptych.stream"], rejected["diptych.reason"]) == (
        "ledger.cheque.none",
        "CHEQUE_NOT_FOUND",
    )


async def test_a_transaction_and_its_commands_have_links_to_each_other(spans: RecordedSpans) -> None:
    calls = [
        (request(Deposit("a", 5)), trace_of(number, flags))
        for number, flags in ((1, "01"), (2, "00"), (3, "01"))
    ]
    await run(MemoryEventStore(), calls)
    (transaction,), (first, third) = spans.find("commit commands"), spans.find("call")
    assert transaction.parent is not None
    assert f"{transaction.parent.span_id:016x}" == id_of(first)
    assert (transaction.attributes or {})["diptych.commands"] == 3
    assert [f"{link.context.span_id:016x}" for link in transaction.links] == [id_of(first), id_of(third)]
    assert [f"{link.context.span_id:016x}" for link in third.links] == [id_of(transaction)]
    assert {span.context.trace_id for span in spans.get_finished_spans()} == {1, 3}
    for name in ("SELECT streams", "INSERT events"):
        (statement,) = spans.find(name)
        assert statement.kind is SpanKind.CLIENT
        assert (statement.attributes or {})["db.system.name"] == "postgresql"
        assert statement.parent is not None
        assert f"{statement.parent.span_id:016x}" == id_of(transaction)


async def test_a_repeated_request_has_no_transaction(spans: RecordedSpans) -> None:
    store, deposit = MemoryEventStore(), request(Deposit("a", 5))
    await run(store, [(deposit, trace_of(1))])
    assert "diptych.repeated" not in (spans.find("call")[0].attributes or {})
    spans.clear()
    await run(store, [(deposit, trace_of(2)), (deposit, trace_of(3))])
    assert spans.names == ["call", "call"]
    assert all((span.attributes or {})["diptych.repeated"] for span in spans.find("call"))


async def test_a_request_that_is_sent_twice_at_once_takes_effect_in_one_span(spans: RecordedSpans) -> None:
    deposit = request(Deposit("a", 5))
    await run(MemoryEventStore(), [(deposit, trace_of(1)), (deposit, trace_of(2))])
    repeated = ["diptych.repeated" in (span.attributes or {}) for span in spans.find("call")]
    assert sorted(repeated) == [False, True]
    (transaction,) = spans.find("commit commands")
    assert len(transaction.links) == 1


class BrokenStore(MemoryEventStore):
    @asynccontextmanager
    async def begin(self) -> AsyncIterator[MemoryTransaction]:
        async with super().begin():
            yield BrokenTransaction(self)


class BrokenTransaction(MemoryTransaction):
    async def commit(self, changes: Changes) -> None:
        raise StoreFailed("the data are damaged")


async def test_a_transaction_that_fails_has_an_error(spans: RecordedSpans) -> None:
    await run(BrokenStore(), [(request(Deposit("a", 5)), trace_of(1))])
    assert {(span.attributes or {})["error.type"] for span in spans.find("commit commands")} == {
        "StoreFailed"
    }
    (call,) = spans.find("call")
    assert (call.attributes or {})["diptych.outcome"] == "failed"
    assert "diptych.repeated" not in (call.attributes or {})


async def test_an_unsampled_command_has_no_span(spans: RecordedSpans) -> None:
    await run(MemoryEventStore(), [(request(Deposit("a", 5)), trace_of(1, "00"))])
    assert spans.names == []


@pytest.mark.parametrize("is_on", [True, False])
def test_without_traces_nothing_is_decorated(monkeypatch: pytest.MonkeyPatch, is_on: bool) -> None:
    monkeypatch.setattr(tracing, "_tracer", object() if is_on else None)
    store, traces = MemoryEventStore(), CommandTraces()
    commits = group_commit(store)
    assert (traces.trace_transactions(store) is store) is not is_on
    assert (traces.trace_commands(commits.execute) == commits.execute) is not is_on
