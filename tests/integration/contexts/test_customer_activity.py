"""GetCustomerActivity: the number of a customer's other orders, and the addresses that they were sent to."""

from typing import Any

from diptych.ordering.v1.query_service_pb2 import GetCustomerActivityRequest, GetCustomerActivityResponse
from diptych.ordering.v1.types_pb2 import Order, ShippingAddress, ShippingGroup
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.address_digest import digest_address
from query_server.contexts import ordering
from tests.support.builders.order_views import order
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, record_round_trips, respond

HOME, WORK, OTHER = (ShippingAddress(recipient=name) for name in ("home", "work", "other"))


def order_to(order_id: str, *addresses: ShippingAddress, **more: Any) -> Order:
    view = order(order_id, **more)
    view.shipping_groups.extend(ShippingGroup(shipping_address=address) for address in addresses)
    return view


async def get_activity(
    model: ReadModel, *addresses: ShippingAddress, **request: Any
) -> tuple[int, list[str]]:
    """Return the number of orders, and the recipients of the known addresses."""
    recipients = {digest_address(address): address.recipient for address in addresses}
    message = GetCustomerActivityRequest(customer_id="c-1", address_digests=recipients, **request)
    data = await respond(ordering.get_customer_activity, model.views, message)
    response = GetCustomerActivityResponse.FromString(data)
    return response.order_count, [recipients[digest] for digest in response.known_address_digests]


async def test_the_customers_orders_and_addresses_are_found(model: ReadModel) -> None:
    await model.put(
        order_to("a", HOME, placed=1_000_000),
        order_to("b", HOME, WORK, placed=2_000_000),
        order_to("c", OTHER, placed=3_000_000, customer="c-2"),
    )
    assert await get_activity(model, OTHER, WORK, HOME) == (2, ["work", "home"])
    assert await get_activity(model, placed_from=Timestamp(seconds=1)) == (2, [])
    assert await get_activity(model, HOME, placed_from=Timestamp(seconds=1, nanos=1)) == (1, ["home"])
    assert await get_activity(model, placed_from=Timestamp(seconds=3)) == (0, [])


async def test_one_order_can_be_left_out(model: ReadModel) -> None:
    await model.put(order_to("a", HOME), order_to("b", HOME, WORK))
    assert await get_activity(model, HOME, WORK, except_order_id="b") == (1, ["home"])
    assert await get_activity(model, HOME, WORK, except_order_id="a") == (1, ["home", "work"])
    assert await get_activity(model, HOME, except_order_id="unknown") == (2, ["home"])


async def test_orders_are_counted_up_to_a_limit(model: ReadModel) -> None:
    await model.put(*(order_to(f"o-{number:03}", HOME, placed=number) for number in range(150)))
    assert await get_activity(model, except_order_id="o-000") == (100, [])
    assert await get_activity(model, placed_from=Timestamp(nanos=51_000)) == (99, [])


async def test_an_answer_is_one_round_trip(model: ReadModel, monkeypatch: Any) -> None:
    trips = record_round_trips(model, monkeypatch)
    await get_activity(model, HOME, WORK)
    assert trips == [3 + 2], "the range of orders, one range for each address, and two markers"


async def test_an_answer_includes_the_writes_of_its_token(model: ReadModel) -> None:
    await model.put(order_to("a", HOME))
    token = mint_token(INCARNATION, {"ordering.order.a": 1})
    assert await get_activity(model, HOME, at_least_as_fresh=token) == (1, ["home"])
