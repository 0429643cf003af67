"""Orders whose calls belong to a trace, and their spans as a tree. As a module it prints that of an order."""

import asyncio
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from tests.support.harness.caller import Caller
from tests.support.harness.collector import Collector, Span
from tests.support.harness.trade import SCOPES, Trade
from tests.support.harness.waiting import until

SERVICES = {"command_server", "relay", "projector", "process_manager"}
"""The processes with spans of an order that is placed and confirmed."""
CONFIRMED = {
    ("projector", "ordering"): 2,
    ("projector", "inventory"): 1,
    ("projector", "banking"): 1,
    ("process_manager", "ordering"): 1,
}
"""The spans of the second events of an order and its claims, by process and context."""
SHOWN = (
    *("diptych.saga", "diptych.step", "diptych.outcome", "diptych.reason", "diptych.version"),
    *("diptych.model_type", "messaging.message.id"),
)
"""The attributes that a line shows, in this order."""


@asynccontextmanager
async def trading(
    stack: Stack, subject: str, flags: str, correlation: str = ""
) -> AsyncIterator[tuple[Trade, str]]:
    """Trade as this caller; yield its trade and the id of its trace."""
    trace = secrets.token_hex(16)
    metadata = [("traceparent", f"00-{trace}-{secrets.token_hex(8)}-{flags}")]
    if correlation:
        metadata.append(("diptych-correlation-id", correlation))
    caller = Caller(stack, *SCOPES, subject=subject, metadata=metadata)
    yield Trade(caller), trace
    await caller.close()


async def place_order(trade: Trade) -> str:
    return await trade.place_order(await trade.create_product(10), await trade.open_account(100))


async def wait_for_spans(collector: Collector, trace: str, services: set[str]) -> None:
    """Wait until these services have exported spans of a trace."""
    await until(lambda: services <= {span.service for span in collector.spans if span.trace == trace})


async def trace_order(stack: Stack, collector: Collector) -> Sequence[Span]:
    """Place an order, and return the spans of its trace once it is confirmed, from PlaceOrder on."""
    async with trading(stack, "alice", "00") as (trade, _):
        sku, account_id = await trade.create_product(10), await trade.open_account(100)
    async with trading(stack, "alice", "01") as (trade, trace):
        await trade.place_order(sku, account_id, customer="ada")  # who owns the account

    def list_spans() -> list[Span]:
        return [span for span in collector.spans if span.trace == trace]

    def has_ended() -> bool:
        """Return whether views and saga have the second events of the order and its claims.

        Each process exports its spans by itself, so parents and children come in any order.
        """
        spans = list_spans()
        received = Counter(
            (span.service, span.attributes["messaging.message.id"].partition(".")[0])
            for span in spans
            if span.attributes.get("messaging.message.id", "").endswith("@2")
            if span.kind == "CONSUMER" and "fulfilment." not in span.attributes["messaging.message.id"]
        )
        parents = {span.parent for span in spans}
        has_answers = all(span.id in parents for span in spans if "diptych.step" in span.attributes)
        return received == CONFIRMED and len(list_roots(spans)) == 1 and has_answers

    await until(has_ended, 30)
    return list_spans()


def list_roots(spans: Sequence[Span]) -> list[Span]:
    """Return the spans whose parent is not among them."""
    ids = {span.id for span in spans}
    return [span for span in spans if span.parent not in ids]


def render_trace(spans: Sequence[Span]) -> str:
    """Return the spans of one trace as lines, each below its parent, in the order of their starts."""
    ordered = sorted(spans, key=lambda span: span.start_ns)
    begin = min((span.start_ns for span in spans), default=0)
    return "\n".join(line for root in list_roots(ordered) for line in _list_lines(root, ordered, begin, 0))


def _list_lines(span: Span, spans: Sequence[Span], begin_ns: int, depth: int) -> Iterator[str]:
    facts = " ".join(str(span.attributes[key]) for key in SHOWN if key in span.attributes)
    times = f"{(span.start_ns - begin_ns) / 1e6:6.1f} +{(span.end_ns - span.start_ns) / 1e6:.1f}"
    name = span.name.removeprefix("diptych.").replace(".v1.CommandService", "")
    yield f"{times:<14} {'  ' * depth}{span.kind.lower()} {name} [{span.service}] {facts}".rstrip()
    for child in spans:
        if child.parent == span.id:
            yield from _list_lines(child, spans, begin_ns, depth + 1)


async def main() -> None:
    """Print the trace of an order, with times in milliseconds: since its start, and how long each took."""
    collector = Collector()
    await collector.start()
    with tempfile.TemporaryDirectory() as folder:
        environment = collector.environment
        async with temporary_stack(Path(folder), process_managers=1, environment=environment) as stack:
            await trace_order(stack, collector)  # the processes are warm then
            spans = await trace_order(stack, collector)
    await collector.stop()
    sys.stdout.write(render_trace(spans) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
