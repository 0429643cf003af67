"""A server of the real query service's shape whose handlers do what an order's id tells them to.

Run as a module it is a process like the real ones, `--workers` and all; its address is DIPTYCH_QUERY_ADDRESS.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.ordering.v1 import query_service_pb2 as queries
from diptych.ordering.v1.types_pb2 import Order

from runtime.grpc import caller, server
from runtime.grpc.method import Handler
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service
from runtime.process import logs, workers
from runtime.process.lifecycle import Lifecycle, read_settings
from runtime.telemetry import metrics, tracing

QUEUE = 100
SERVICE = queries.DESCRIPTOR.services_by_name["QueryService"]
log = logs.get_logger("toy")


async def get_order(request: queries.GetOrderRequest, context: Any) -> Any:
    """Answer with an order whose customer is the caller, after what the id's first word asks for."""
    what, _, how = request.order_id.partition("-")
    if what == "slow":  # slow-<milliseconds>
        await asyncio.sleep(int(how) / 1000)
    if what == "block":  # the whole process, until a file is there
        block_until(Path(os.environ["TOY_RELEASE"]))
    if what == "bug":
        raise KeyError("a secret of ours")
    if what == "rule":
        raise RpcError.not_found("ordering", "ORDER_NOT_FOUND", {"orderId": request.order_id})
    if what == "later":
        raise RpcError("VIEW_BEHIND", "not yet", {"stream": "ordering.order.o-1"}, retry_after=0.25)
    if what == "traced":
        with tracing.span("inner"):
            log.info("Traced", traceparent=tracing.current_traceparent())
        metrics.event_processed("toy", True)
    who = caller.current()
    order = Order(
        order_id=request.order_id,
        customer_id=who.subject,
        account_id=who.on_behalf_of or "",
        warehouse_id=str(os.getpid()),
    )
    return queries.GetOrderResponse(order=order)


def block_until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


async def list_orders(request: queries.ListOrdersRequest, context: Any) -> bytes:
    """Answer with bytes, as a server that does not parse its views."""
    return queries.ListOrdersResponse(next_page_token="more").SerializeToString()


async def unasked(request: Any, context: Any) -> Any:
    """Stand for the methods that no test calls."""
    raise AssertionError(request)


def service(get: Handler) -> Service:
    unasked_ones: dict[str, Handler] = {method.name: unasked for method in SERVICE.methods}
    return Service(SERVICE, unasked_ones | {"GetOrder": get, "ListOrders": list_orders})


def services() -> Sequence[Service]:
    return [service(get_order)]


async def ready() -> bool:
    return True


async def main(lifecycle: Lifecycle, contexts: Sequence[str]) -> None:
    async def die() -> None:
        raise RuntimeError("a part of the process is dead")

    begun = 0

    async def get(request: queries.GetOrderRequest, context: Any) -> Any:
        nonlocal begun
        begun += 1
        if request.order_id == "die":
            lifecycle.spawn(die(), "part")
        return await get_order(request, context)

    edge = server.build(
        lifecycle.settings,
        [service(get)],
        address=lifecycle.settings.query_address,
        probe=ready,
        probe_address=lifecycle.settings.query_probe_address,
        queue=QUEUE,
    )
    await edge.serve(lifecycle)
    log.info("Ended", begun=begun, contexts=contexts)


if __name__ == "__main__":
    settings = read_settings()
    workers.run(main, "tests.support.harness.toy_server", settings, settings.query_address, {"toys": "toys"})
