"""Commands as the gRPC edge passes them to the kernel."""

from hashlib import sha256
from time import perf_counter

from diptych.ordering.v1.command_service_pb2 import PlaceOrderRequest

from command_server.contexts import ordering
from command_server.kernel.batch import Request
from command_server.kernel.context import CommandType, command_types


def place_order_type() -> CommandType:
    """Return the command type of PlaceOrder."""
    return command_types(ordering.CONTEXT)["diptych.ordering.v1.CommandService.PlaceOrder"]


def build_request(kind: CommandType, message: PlaceOrderRequest) -> Request:
    """Return a command as the gRPC edge passes it to the kernel."""
    return Request(
        kind=kind,
        command=kind.decode(message, "bench", frozenset({"ordering.own-prices"})),
        caller="bench",
        request_id=message.request_id,
        digest=sha256(message.SerializeToString()).digest(),
        expected_version=None,
        on_behalf_of=None,
        correlation_id=message.request_id,
        causation_id=None,
        traceparent=None,
        arrived_at=perf_counter(),
        deadline=None,
    )
