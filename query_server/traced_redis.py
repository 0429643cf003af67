"""A client of Redis that records a span for each read of a call whose trace is sampled."""

from collections.abc import Coroutine, Sequence
from time import time_ns
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind

from query_server.redis_client import RedisClient
from runtime.redis.pipeline import Command
from runtime.telemetry import trace_context, tracing

T = TypeVar("T")


class TracedRedisClient(RedisClient):
    """The methods return the coroutines of the client itself where there is nothing to trace."""

    def call(self, *command: str | bytes | int) -> Coroutine[Any, Any, Any]:
        return _trace(super().call(*command), command)

    def pipeline(self, *commands: Command) -> Coroutine[Any, Any, list[Any]]:
        return _trace(super().pipeline(*commands), *commands)

    def call_behind(self, first: Command, command: Command) -> Coroutine[Any, Any, tuple[Any, Any]]:
        return _trace(super().call_behind(first, command), first, command)


def _trace(reply: Coroutine[Any, Any, T], *commands: Command) -> Coroutine[Any, Any, T]:
    traceparent = trace_context.get_current()
    if not trace_context.is_sampled(traceparent) or tracing.find_open_span(traceparent) is None:
        return reply
    return _record(reply, traceparent, commands)


async def _record(reply: Coroutine[Any, Any, T], parent: str, commands: Sequence[Command]) -> T:
    start, error = time_ns(), ""
    try:
        return await reply
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        attributes = describe(commands)
        tracing.record_span(
            str(attributes["db.operation.name"]),
            parent=parent,
            start_ns=start,
            end_ns=time_ns(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            error=error,
        )


def describe(commands: Sequence[Command]) -> dict[str, str | int]:
    """Return the attributes of commands that are sent together; they hold no key and no value."""
    names = {str(command[0]) for command in commands}
    operation = names.pop() if len(names) == 1 else ""
    if len(commands) == 1:
        return {"db.system.name": "redis", "db.operation.name": operation}
    return {
        "db.system.name": "redis",
        "db.operation.name": f"PIPELINE {operation}".rstrip(),
        "db.operation.batch.size": len(commands),
    }
