"""Every repeated field of every response is bounded: by its page or batch, or by a rule named here."""

from collections.abc import Iterator
from itertools import combinations

import pytest
from diptych.sagas.v1 import query_service_pb2 as sagas
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor

from query_server.wire_format import UNREAD_IDS
from runtime.grpc.response_size import MAX_PAGE_BYTES, MAX_RESPONSE_BYTES, PageBudget, check_response_size
from runtime.grpc.rpc_error import RpcError
from tests.support.builders.message_fields import walk_fields
from tests.support.harness.contexts import QUERY_CONTEXTS
from tests.support.ledger.queries import CONTEXT as LEDGER

SERVICES: list[ServiceDescriptor] = [
    *(context.service for context in (*QUERY_CONTEXTS, LEDGER)),
    sagas.DESCRIPTOR.services_by_name["QueryService"],
]
BOUNDS = {
    "acme.ledger.v1.Cheque.endorsers": "the ledger's rules: MAX_ENDORSEMENTS",
    "diptych.banking.v1.DailyReport.sums": "kinds of lines, and the currencies of accounts",
    "diptych.catalogue.v1.CategoryTree.categories": "the tree's rules: MAX_CATEGORIES",
    "diptych.catalogue.v1.Facets.attributes": "FACETS of searches",
    "diptych.catalogue.v1.Facets.brands": "FACETS of searches",
    "diptych.catalogue.v1.Facets.categories": "FACETS of searches",
    "diptych.catalogue.v1.Product.prices": "the product's rules: MAX_KEPT",
    "diptych.catalogue.v1.ProductDetails.attributes": "its field rules",
    "diptych.catalogue.v1.ProductDetails.picture_urls": "its field rules",
    "diptych.catalogue.v1.QuotePricesResponse.quotes": "the skus of its request",
    "diptych.catalogue.v1.QuotePricesResponse.unavailable_skus": "the skus of its request",
    "diptych.catalogue.v1.SuggestProductsResponse.suggestions": "the number in its request",
    "diptych.customers.v1.Customer.addresses": "the customer's rules: MAX_ADDRESSES",
    "diptych.customers.v1.PostalAddress.address_lines": "its field rules",
    "diptych.fulfilment.v1.Fulfilment.steps": "deprecated, and never set",
    "diptych.inventory.v1.GetStockResponse.expected": "the days on which its warehouses expect a sku",
    "diptych.inventory.v1.GetStockResponse.stocks": "the product's rules: MAX_WAREHOUSES",
    "diptych.inventory.v1.Product.warehouse_ids": "the product's rules: MAX_WAREHOUSES",
    "diptych.inventory.v1.PurchaseOrder.lines": "RaisePurchaseOrderRequest.lines",
    "diptych.inventory.v1.Reservation.lines": "ReserveStockRequest.lines",
    "diptych.ordering.v1.CustomerSummary.StateSummary.totals": "the currencies of orders",
    "diptych.ordering.v1.CustomerSummary.states": "the values of Order.State",
    "diptych.ordering.v1.GetCustomerActivityResponse.known_address_digests": "the digests of its request",
    "diptych.ordering.v1.Order.lines": "deprecated, and never set",
    "diptych.ordering.v1.Order.shipping_groups": "PlaceOrderRequest.shipping_groups",
    "diptych.ordering.v1.OrderCard.products": "the order's rules: MAX_LINES",
    "diptych.ordering.v1.ShippingAddress.address_lines": "its field rules",
    "diptych.ordering.v1.ShippingGroup.lines": "the order's rules: MAX_LINES",
    "diptych.sagas.v1.Saga.operator_actions": "SagaQueries.select_latest",
    "diptych.sagas.v1.Saga.steps": "SagaQueries.select_latest",
    "diptych.sagas.v1.Saga.streams": "instance.MAX_OTHER_STREAMS",
    "diptych.sagas.v1.Saga.timers": "SagaQueries.select_latest",
    "diptych.ticketing.v1.Availability.sections": "ScheduleShowRequest.sections",
    "diptych.ticketing.v1.Booking.seats": "HoldSeatsRequest.seats",
    "diptych.ticketing.v1.Booking.tickets": "the rules of allowances: MAX_SEATS",
    "diptych.ticketing.v1.Show.SectionSeats.rows": "Section.rows",
    "diptych.ticketing.v1.Show.sections": "ScheduleShowRequest.sections",
    "diptych.ticketing.v1.WaitingList.entries": "the rules of waiting lists: MAX_ENTRIES",
}
"""The bound of each repeated field that is neither the items of a page or batch, nor ids of a batch."""


def list_responses() -> Iterator[Descriptor]:
    for service in SERVICES:
        for method in service.methods:
            yield method.output_type


def is_bounded_by_its_response(field: FieldDescriptor) -> bool:
    """Return whether a field of a response has the items of its page, or the items or ids of its batch."""
    response = field.containing_type
    assert response is not None
    unread = response.fields_by_number.get(UNREAD_IDS)
    is_batch = unread is not None and unread.name.startswith("unread_") and unread.is_repeated
    return is_batch or ("next_page_token" in response.fields_by_name and field.number == 1)


def test_every_repeated_field_of_a_response_has_a_bound() -> None:
    repeated = {
        field
        for response in list_responses()
        for field in walk_fields(response)
        if field.is_repeated and not is_bounded_by_its_response(field)
    }
    assert {field.full_name for field in repeated} == BOUNDS.keys()


def test_every_batch_names_the_ids_that_were_not_read() -> None:
    for service in SERVICES:
        for method in service.methods:
            if method.name.startswith("BatchGet"):
                fields = method.output_type.fields
                assert fields[1].name.startswith("missing_")
                assert fields[2].name == fields[1].name.replace("missing_", "unread_")
                assert fields[3].name == fields[1].name.replace("missing_", "archived_")


def test_a_watch_sends_one_view_at_a_time() -> None:
    for service in SERVICES:
        for method in service.methods:
            if method.server_streaming:
                assert not any(field.is_repeated for field in method.output_type.fields)


@pytest.mark.parametrize("response", list(list_responses()), ids=lambda response: response.full_name)
def test_no_response_holds_the_same_messages_twice(response: Descriptor) -> None:
    """Two repeated fields of one type in a view have the same content in two forms; one is deprecated."""
    holders = {
        field.full_name: field.message_type
        for field in walk_fields(response)
        if field.is_repeated and field.message_type is not None and not field.GetOptions().deprecated
    }
    for one, other in combinations(holders, 2):
        assert holders[one] is not holders[other], f"{one} and {other}"


def test_the_first_item_always_fits() -> None:
    budget = PageBudget(10)
    assert budget.take(11)
    assert not budget.take(1)
    budget = PageBudget(10)
    assert [budget.take(size) for size in (0, 10, 0, 1)] == [True, True, True, False]


def test_a_page_with_a_single_larger_item_arrives() -> None:
    assert MAX_PAGE_BYTES < MAX_RESPONSE_BYTES == 4 * 2**20
    response = b"x" * MAX_RESPONSE_BYTES
    assert check_response_size(response) is response
    with pytest.raises(RpcError) as error:
        check_response_size(response + b"x")
    assert error.value.reason == "RESPONSE_TOO_LARGE"
