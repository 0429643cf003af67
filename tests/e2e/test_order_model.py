"""The whole system behaves like the model of an order: commands through gRPC, each read back."""

from typing import Any
from uuid import uuid4

import grpc
from diptych.ordering.v1 import command_service_pb2 as v1
from diptych.ordering.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ordering.v1.query_service_pb2 import GetOrderRequest
from diptych.ordering.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ordering.v1.types_pb2 import Order, ShippingGroup
from diptych.ordering.v2 import command_service_pb2 as v2
from diptych.ordering.v2 import command_service_pb2_grpc as v2_grpc
from google.protobuf.json_format import ParseDict
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.bearer import bearer
from tests.support.harness.rpc_failure import read_failure
from tests.support.models.order import JSON, NANOS, OrderMachine

DUTIES = ("place", "own-prices", "read", "review", "confirm", "ship")


def test_orders_follow_the_model(stack: Stack) -> None:
    who = bearer(stack, *(f"ordering.{duty}" for duty in DUTIES))
    channels = [
        grpc.insecure_channel(process.address)
        for kind in (COMMAND_SERVER, QUERY_SERVER)
        for process in stack.of(kind)
    ]
    here, there, *queries = channels

    class Through(GrpcMachine):
        def __init__(self) -> None:
            super().__init__(who, [here, there], queries[0])

    run_state_machine_as_test(Through, settings=settings(max_examples=12, stateful_step_count=20))
    for channel in channels:
        channel.close()


class GrpcMachine(OrderMachine):
    """Sends every command to one command server and again to the other, then reads the order."""

    def __init__(self, who: Any, commands: list[grpc.Channel], queries: grpc.Channel) -> None:
        super().__init__()
        self.who = who
        self.order_id = str(uuid4())
        self.token = ""
        self.channels = commands
        self.queries: Any = QueryServiceStub(queries)

    def execute(self, name: str, fields: JSON) -> str:
        identified = {"request_id": str(uuid4()), "order_id": self.order_id, **fields}
        first, second = [self._call(channel, name, identified) for channel in self.channels]
        assert first == second, "a retry has the first answer"
        reason, token = first
        self.token = token or self.token
        return reason

    def _call(self, channel: grpc.Channel, name: str, fields: JSON) -> tuple[str, str]:
        """Return the reason of a rejection, and the receipt's token."""
        newest: Any = (v2, v2_grpc.CommandServiceStub) if name == "PlaceOrder" else (v1, CommandServiceStub)
        messages, stub = newest
        request = ParseDict(fields, getattr(messages, f"{name}Request")())
        try:
            answer = getattr(stub(channel), name)(request, metadata=self.who)
        except grpc.RpcError as error:
            return read_failure(error).reason, ""
        assert answer.receipt.version == self.model.version
        return "", answer.receipt.consistency_token

    def compare(self) -> None:
        if self.model.status == "NONE":
            return
        request = GetOrderRequest(order_id=self.order_id, at_least_as_fresh=self.token)
        order = self.queries.GetOrder(request, metadata=self.who).order
        groups = [ParseDict(group, ShippingGroup()) for group in self.model.groups.values()]
        assert (Order.State.Name(order.state), order.version) == (
            f"STATE_{self.model.status}",
            self.model.version,
        )
        assert list(order.shipping_groups) == groups
        assert order.total.units * NANOS + order.total.nanos == self.model.total()
