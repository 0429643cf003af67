"""Every field of a request has a bound, and the largest valid requests reach their server and the stream."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
from diptych.inventory.v1.query_service_pb2 import GetStockRequest
from diptych.ordering.v1.types_pb2 import Order
from diptych.sagas.v1 import query_service_pb2 as sagas
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from protovalidate import Validator

from command_server.contexts.inventory.domain.product import MAX_WAREHOUSES
from command_server.contexts.ordering import CONTEXT as ORDERING
from command_server.kernel.context import aggregate_types, command_types
from contracts import incarnations
from contracts.envelope import MAX_EVENT_BYTES, RecordedEvent
from diptych_testing.scenario import NOW
from projector.projections.ordering.order import ORDERS
from runtime.codec import message_class
from runtime.grpc.response_size import FIRST_READ, MAX_PAGE_BYTES
from runtime.grpc.validation import MAX_REQUEST_BYTES
from tests.support.builders.large_orders import WIDE, large_order
from tests.support.builders.orders import OWN_PRICES
from tests.support.harness.contexts import CONTEXTS, QUERY_CONTEXTS
from tests.support.harness.keys import mint_token
from tests.support.ledger.queries import CONTEXT as LEDGER_QUERIES
from tests.support.ledger.rules import CONTEXT as LEDGER

INCARNATION = incarnations.create()
VALIDATOR = Validator()
Path = tuple[FieldDescriptor, ...]
TOO_LONG, TOO_MANY = "a" * 200_000, 2_000


def list_requests() -> Iterator[Descriptor]:
    services = [service for context in (*CONTEXTS, LEDGER) for service in context.services]
    services += [context.service for context in (*QUERY_CONTEXTS, LEDGER_QUERIES)]
    services.append(sagas.DESCRIPTOR.services_by_name["QueryService"])
    return (method.input_type for service in services for method in service.methods)


def find_paths(message: Descriptor) -> Iterator[Path]:
    """Yield the path to every field of a message and of the messages in it that can grow."""
    for field in message.fields:
        if field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield (field,)
        if field.message_type is not None:
            yield from ((field, *rest) for rest in find_paths(field.message_type))


def is_bounded(request: Descriptor, path: Path) -> bool:
    """Return whether a request is invalid because of a value of this field that is far too large."""
    return all(is_refused(request, path, value) for value in get_large_values(path[-1]))


def get_large_values(field: FieldDescriptor) -> Sequence[Any]:
    is_text = field.type == FieldDescriptor.TYPE_STRING
    if not field.is_repeated:
        return [TOO_LONG]
    return [[str(number) for number in range(TOO_MANY)], [TOO_LONG]] if is_text else [TOO_MANY]


def is_refused(request: Descriptor, path: Path, value: Any) -> bool:
    message: Any = message_class(request)()
    *parents, last = path
    holder = message
    for parent in parents:
        nested = getattr(holder, parent.name)
        holder = nested.add() if parent.is_repeated else nested
        holder.SetInParent()
    if isinstance(value, str):
        setattr(holder, last.name, value)
    elif isinstance(value, list):
        getattr(holder, last.name).extend(value)
    else:
        for _ in range(value):
            getattr(holder, last.name).add()
    refused = {
        tuple(element.field_name for element in violation.proto.field.elements)
        for violation in VALIDATOR.collect_violations(message)
        if violation.proto.field
    }
    names = tuple(field.name for field in path)
    return names in refused or names[:-1] in refused  # a Money has its rules in the field that holds it


@pytest.mark.parametrize("request_type", list(list_requests()), ids=lambda request: request.full_name)
def test_every_field_that_can_grow_has_a_bound(request_type: Descriptor) -> None:
    unbounded = [
        ".".join(field.name for field in path)
        for path in find_paths(request_type)
        if not is_bounded(request_type, path)
    ]
    assert not unbounded


LARGEST_ORDER = large_order(
    "c" * 64, "a" * 64, [WIDE * 62 + f"{number:02}" for number in range(10)], "w" * 64
)
"""The longest skus are of 64 characters."""


def test_the_largest_order_is_valid_and_passes_every_limit() -> None:
    assert not VALIDATOR.collect_violations(LARGEST_ORDER)
    assert LARGEST_ORDER.ByteSize() < MAX_REQUEST_BYTES
    kind = command_types(ORDERING)["diptych.ordering.v2.CommandService.PlaceOrder"]
    command = kind.decode(LARGEST_ORDER, "caller", OWN_PRICES)
    aggregate = aggregate_types((ORDERING,))["ordering.order"]
    (stream,) = kind.decider.streams(command)
    (placed,) = kind.decider.decide(command, {stream: aggregate.initial}, NOW)[stream]
    name, data = aggregate.encode(placed)
    assert len(data) < MAX_EVENT_BYTES / 2
    rendered, _, error = ORDERS.fold(Order(), [RecordedEvent(stream, 1, name, data, NOW, 1, {})])
    assert (rendered is not None, error) == (True, None)
    size = len(rendered.message.SerializeToString()) if rendered else 0
    assert size * FIRST_READ < 3 * MAX_PAGE_BYTES, "the first read of a page reads little in vain"
    print("bytes of the request, the event and the view:", LARGEST_ORDER.ByteSize(), len(data), size)


@pytest.mark.parametrize("streams", [1 + 100, 1 + MAX_WAREHOUSES], ids=["ReserveStock", "DiscontinueProduct"])
def test_the_token_of_the_command_with_the_most_streams_is_accepted(streams: int) -> None:
    """ReserveStock changes the stock of each line, and DiscontinueProduct that of each warehouse."""
    versions = {f"inventory.stock.{uuid4()}": 10**9 for _ in range(streams)}
    request = GetStockRequest(sku="tea", at_least_as_fresh=mint_token(INCARNATION, versions))
    print("characters of the token:", len(request.at_least_as_fresh))
    assert not VALIDATOR.collect_violations(request)
