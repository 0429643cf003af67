"""A toy server with the interface of the real query service, controlled by the cheque ids in requests.

Run as a module it is a process like the real servers, including `--workers`. It listens at
DIPTYCH_QUERY_ADDRESS.
"""

import asyncio
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from runtime.grpc import caller, metadata, server
from runtime.grpc.method import Handler
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service
from runtime.process import logs, workers
from runtime.process.lifecycle import Lifecycle, read_settings
from runtime.telemetry import trace_context, tracing
from runtime.telemetry.instruments import Counter
from tests.support.ledger.stubs import queries, types

MAX_PENDING = 100
SERVICE = queries.DESCRIPTOR.services_by_name["QueryService"]
log = logs.get_logger("toy")


@cache
def declare_events() -> Counter:
    """Declare the metric in this process alone: a test's own process has the projector's of that name."""
    return Counter("events.processed", "{event}", "Events of the toy", "event_type", "success")


async def get_cheque(request: Any, context: Any) -> Any:
    """Run the action in the first word of the cheque id, then return a cheque whose writer is the caller."""
    action, _, argument = request.cheque_id.partition("-")
    if action == "slow":  # slow-<milliseconds>
        await asyncio.sleep(int(argument) / 1000)
    if action == "busy":  # busy-<milliseconds>: takes the event loop for itself
        time.sleep(int(argument) / 1000)  # noqa: ASYNC251 - that is the point
    if action == "block":  # blocks the event loop until a file exists
        block_until(Path(os.environ["TOY_RELEASE"]))
    if action == "stale":  # stale-<milliseconds>
        context.set_trailing_metadata(((metadata.STALENESS, argument),))
    if action == "print":
        print_everywhere(argument)
    if action == "bug":
        raise KeyError("a secret of ours")
    if action == "rule":
        raise RpcError.not_found("ledger", "CHEQUE_NOT_FOUND", {"chequeId": request.cheque_id})
    if action == "later":
        raise RpcError("VIEW_BEHIND", "not yet", {"stream": "ledger.cheque.c-1"}, retry_after=0.25)
    if action == "traced":
        with tracing.span("inner"):
            log.info("Traced", traceparent=trace_context.get_current())
        declare_events().count("toy", True)
    size = int(argument) if action == "large" else 0  # large-<bytes>
    current_caller = caller.current()
    cheque = types.Cheque(
        cheque_id=request.cheque_id,
        writer=current_caller.subject,
        account_id=current_caller.on_behalf_of or "",
        void_reason=str(os.getpid()) + "x" * size,
    )
    return queries.GetChequeResponse(cheque=cheque)


def print_everywhere(text: str) -> None:
    """Print as libraries do: to both streams, as a warning, and in C, more than a pipe holds."""
    print("printed", text)
    print("complained", text, file=sys.stderr)
    warnings.warn(f"warned {text}", stacklevel=2)
    for _ in range(20):
        with suppress(OSError):
            os.write(2, b"in C\n" * 2_000)


def block_until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


async def list_cheques(request: Any, context: Any) -> bytes:
    """Return bytes, like a server that does not parse its views."""
    data: bytes = queries.ListChequesResponse(next_page_token="more").SerializeToString()
    return data


async def fail(request: Any, context: Any) -> Any:
    """Handle the methods that no test calls."""
    raise AssertionError(request)


def service(get: Handler) -> Service:
    handlers: dict[str, Handler] = {method.name: fail for method in SERVICE.methods}
    return Service(SERVICE, handlers | {"GetCheque": get, "ListCheques": list_cheques})


def services() -> Sequence[Service]:
    return [service(get_cheque)]


async def ready() -> bool:
    return True


async def main(lifecycle: Lifecycle, contexts: Sequence[str]) -> None:
    async def die() -> None:
        raise RuntimeError("a part of the process is dead")

    call_count = 0

    async def get(request: Any, context: Any) -> Any:
        nonlocal call_count
        call_count += 1
        if request.cheque_id == "die":
            lifecycle.spawn(die(), "part")
        return await get_cheque(request, context)

    edge = server.build(
        lifecycle.settings,
        [service(get)],
        address=lifecycle.settings.query_address,
        probe=ready,
        probe_address=lifecycle.settings.query_probe_address,
        max_pending=MAX_PENDING,
    )
    await edge.serve(lifecycle)
    log.info("Ended", calls=call_count, contexts=contexts)


if __name__ == "__main__":
    settings = read_settings()
    workers.run(main, "tests.support.harness.toy_server", settings, settings.query_address, {"toys": "toys"})
