"""Queries of customers: customers by id and by email address, lists, histories, and confirmations."""

from datetime import UTC, datetime
from time import time

from diptych.customers.v1 import query_service_pb2 as protocol
from diptych.customers.v1.types_pb2 import Confirmation, Customer, EmailClaim
from diptych.history.v1.history_pb2 import Entry

from contracts.email_addresses import normalize_email
from contracts.hidden_ids import list_hidden_ids
from contracts.key_ring import Purpose
from contracts.signed_tokens import TokenSigner
from contracts.view_layout import View
from query_server import batches, history_pages, list_pages, watches
from query_server.fresh_reader import FreshReader
from query_server.not_found import NotFound
from query_server.service import Query, QueryContext, WatchQuery
from query_server.view_reader import Window
from query_server.watches import Watch, WatchResponses
from query_server.wire_format import encode_view
from runtime.grpc.rpc_error import RpcError

CUSTOMERS, CLAIMS = View.of(Customer), View.of(EmailClaim)
CLAIM_STREAMS = "customers.email_claim"
CUSTOMER_NOT_FOUND = NotFound("customers", "CUSTOMER_NOT_FOUND", ("customer_id",))
EMAIL_CHANGE_NOT_FOUND = NotFound("customers", "EMAIL_CHANGE_NOT_FOUND", ("customer_id",))
NO_ID = ""
"""The id in the error of a customer who was looked for by something else, which errors must not repeat."""


async def get_customer(customers: FreshReader, request: protocol.GetCustomerRequest) -> bytes:
    return encode_view(await customers.get(request.customer_id, CUSTOMER_NOT_FOUND))


async def batch_get_customers(customers: FreshReader, request: protocol.BatchGetCustomersRequest) -> bytes:
    return (await batches.read_batch(customers, request.customer_ids)).encode()


async def find_customer(claims: FreshReader, request: protocol.FindCustomerRequest) -> bytes:
    """Respond with the open customer with an email address."""
    (customers,) = claims.others
    try:
        email = normalize_email(request.email)
    except ValueError:
        raise CUSTOMER_NOT_FOUND.error(NO_ID) from None
    claim_ids = list_hidden_ids(claims.tokens.get_ring(), CLAIM_STREAMS, email, time())
    for data in await claims.get_all(claim_ids):
        if isinstance(data, RpcError):
            raise data
        if isinstance(data, bytes) and (customer_id := EmailClaim.FromString(data).customer_id):
            found = await customers.get(customer_id, CUSTOMER_NOT_FOUND)
            if is_of(Customer.FromString(found), email):
                return encode_view(found)
    raise CUSTOMER_NOT_FOUND.error(NO_ID)


def is_of(customer: Customer, email: str) -> bool:
    """Return whether a customer has an address; the view of the claim may be behind, or ahead of it."""
    return customer.state == Customer.STATE_OPEN and customer.email == email


async def list_customers(customers: FreshReader, request: protocol.ListCustomersRequest) -> bytes:
    return (await list_pages.read_page(customers, Window(customers.view.index("all")), request)).encode()


async def get_email_confirmation(
    customers: FreshReader, request: protocol.GetEmailConfirmationRequest
) -> bytes:
    """Respond with the signed confirmation of a pending email address."""
    customer = Customer.FromString(await customers.get(request.customer_id, CUSTOMER_NOT_FOUND))
    pending, get_ring = customer.pending_email, customers.tokens.get_ring
    if pending.expire_time.ToDatetime(UTC) <= datetime.now(UTC):  # 1970 if there is none
        raise EMAIL_CHANGE_NOT_FOUND.error(request.customer_id)
    claim_id = list_hidden_ids(get_ring(), CLAIM_STREAMS, pending.email, time())[0]
    content = Confirmation(customer_id=request.customer_id, claim_id=claim_id, expires_at=pending.expire_time)
    confirmation = TokenSigner(Purpose.CONFIRMATION, get_ring).sign(content.SerializeToString())
    return protocol.GetEmailConfirmationResponse(
        email=pending.email, confirmation=confirmation, expire_time=pending.expire_time
    ).SerializeToString()


async def get_customer_history(customers: FreshReader, request: protocol.GetCustomerHistoryRequest) -> bytes:
    page = await history_pages.read_page(customers, request.customer_id, CUSTOMER_NOT_FOUND, request, Entry)
    return page.encode()


def watch_customer(watch: Watch, request: protocol.WatchCustomerRequest) -> WatchResponses:
    return watches.watch_view(watch, request.customer_id, CUSTOMER_NOT_FOUND)


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetCustomer": Query(CUSTOMERS, get_customer),
        "BatchGetCustomers": Query(CUSTOMERS, batch_get_customers),
        "FindCustomer": Query(CLAIMS, find_customer, (CUSTOMERS,)),
        "ListCustomers": Query(CUSTOMERS, list_customers),
        "GetEmailConfirmation": Query(CUSTOMERS, get_email_confirmation),
        "GetCustomerHistory": Query(CUSTOMERS, get_customer_history),
    },
    {"WatchCustomer": WatchQuery(CUSTOMERS, watch_customer)},
    key_purposes=(Purpose.CONFIRMATION, Purpose.UNIQUE),
)
