"""Traces of commands: attributes of their spans, and the spans of the transactions that commands share.

How it works. A transaction belongs to several traces. Its span is a child of the span of the first sampled
command, has links to the spans of all sampled commands, and theirs have links to it. It is recorded at the
end, since only the rows that it writes tell which commands it holds. Without a sampled command it costs some
readings of the clock.
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from time import time_ns

from opentelemetry.trace import Span, SpanKind

from command_server.kernel.batch import Request
from command_server.kernel.outcomes import Accepted, CommandResult, Outcome, Rejection
from command_server.kernel.ports import (
    Changes,
    EventStore,
    RequestKey,
    RequestLookup,
    StoredStream,
    Transaction,
)
from command_server.observer import classify, find_target
from command_server.service import Execute
from runtime.telemetry import tracing
from runtime.telemetry.trace_context import is_sampled

POSTGRESQL = {"db.system.name": "postgresql"}


class CommandTraces:
    """Traces commands and their transactions."""

    def __init__(self) -> None:
        self._running: dict[str, bool] = {}
        """By the traceparents of the sampled commands: whether a transaction has committed them."""

    def trace_commands(self, execute: Execute) -> Execute:
        """Return an `execute` that describes each sampled command in its span."""

        def trace(request: Request) -> Awaitable[CommandResult]:
            span = tracing.find_open_span(request.traceparent)
            return execute(request) if span is None else self._trace(execute, request, span)

        return trace if tracing.is_on() else execute

    def trace_transactions(self, store: EventStore) -> EventStore:
        """Return a store that records spans of the transactions with sampled commands."""
        return _TracedStore(store, self._running) if tracing.is_on() else store

    async def _trace(self, execute: Execute, request: Request, span: Span) -> CommandResult:
        outcome: Outcome | BaseException | None = None
        traceparent = request.traceparent or ""
        self._running[traceparent] = False
        try:
            result = await execute(request)
            outcome = result.outcome
            return result
        except BaseException as error:
            outcome = error
            raise
        finally:
            _describe(span, request, outcome, committed=self._running.pop(traceparent))


def _describe(
    span: Span, request: Request, outcome: Outcome | BaseException | None, *, committed: bool
) -> None:
    name, reason = classify(outcome)
    if isinstance(outcome, Accepted):
        stream, version = next(iter(outcome.versions.items()))
        span.set_attribute("diptych.version", version)
    else:
        stream = find_target(request) or ""
    span.set_attributes(
        {
            "diptych.command": request.kind.name,
            "diptych.request_id": request.request_id,
            "diptych.correlation_id": request.correlation_id,
            "diptych.stream": stream,
            "diptych.outcome": name,
        }
    )
    if reason is not None:
        span.set_attribute("diptych.reason", reason)
    if not committed and isinstance(outcome, Accepted | Rejection):
        span.set_attribute("diptych.repeated", True)  # the outcome was on record; this call changed nothing


class _TracedStore:
    """A store whose transactions record their spans."""

    def __init__(self, store: EventStore, running: dict[str, bool]) -> None:
        self._store = store
        self._running = running
        self.read_chunk, self.read_snapshot = store.read_chunk, store.read_snapshot
        self.keep_snapshot = store.keep_snapshot

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        return _Begun(self._store.begin(), self._running)


class _Begun:
    """The context of a transaction."""

    def __init__(self, begun: AbstractAsyncContextManager[Transaction], running: dict[str, bool]) -> None:
        self._begun = begun
        self._running = running

    async def __aenter__(self) -> Transaction:
        start = time_ns()
        return _TracedTransaction(await self._begun.__aenter__(), start, self._running)

    async def __aexit__(self, *error: object) -> bool | None:
        return await self._begun.__aexit__(*error)  # type: ignore[arg-type]


class _TracedTransaction:
    def __init__(self, transaction: Transaction, start_ns: int, running: dict[str, bool]) -> None:
        self._transaction = transaction
        self._start = start_ns
        self._locked = (start_ns, start_ns)
        self._running = running
        self.read_streams, self.read_events = transaction.read_streams, transaction.read_events
        self.obtain_keys = transaction.obtain_keys

    async def lock_and_find(
        self, streams: Collection[str], keys: Collection[RequestKey], *, skip_locked: bool = False
    ) -> tuple[Mapping[str, StoredStream], RequestLookup]:
        start = time_ns()
        found = await self._transaction.lock_and_find(streams, keys, skip_locked=skip_locked)
        self._locked = start, time_ns()
        return found

    async def commit(self, changes: Changes) -> None:
        sampled = [each.traceparent for each in changes.requests if is_sampled(each.traceparent)]
        if not sampled:
            return await self._transaction.commit(changes)
        start, error = time_ns(), ""
        try:
            await self._transaction.commit(changes)
            self._running.update(dict.fromkeys(self._running.keys() & sampled, True))
        except Exception as failure:
            error = type(failure).__name__
            raise
        finally:
            self._record(changes, sampled, start, error)

    def _record(self, changes: Changes, sampled: Sequence[str], commit_start: int, error: str) -> None:
        end = time_ns()
        transaction = tracing.record_span(
            "commit commands",
            parent=sampled[0],
            start_ns=self._start,
            end_ns=end,
            attributes={"diptych.commands": len(changes.requests), "diptych.events": len(changes.events)},
            links=sampled,
            error=error,
        )
        for name, (start_ns, end_ns), failure in (
            ("SELECT streams", self._locked, ""),
            ("INSERT events", (commit_start, end), error),
        ):
            operation, _, table = name.partition(" ")
            tracing.record_span(
                name,
                parent=transaction,
                start_ns=start_ns,
                end_ns=end_ns,
                kind=SpanKind.CLIENT,
                attributes={**POSTGRESQL, "db.operation.name": operation, "db.collection.name": table},
                error=failure,
            )
        for traceparent in sampled[1:]:
            tracing.add_link(traceparent, transaction)
