"""The view of a customer, and its history.

The projector sets `version`; the handlers below set the other fields.
"""

from diptych.customers.v1 import events_pb2 as events
from diptych.customers.v1 import types_pb2 as views

from contracts.events.customers import EVENTS
from contracts.view_layout import View, index_member
from projector.history import create_entry
from projector.projection import Entry, Projection

VIEW = View.of(views.Customer)


def index_entries(customer: views.Customer) -> list[Entry]:
    """List all customers by the time of registration."""
    return [(VIEW.index("all"), index_member(customer.register_time.ToMicroseconds(), customer.customer_id))]


CUSTOMERS = Projection[views.Customer](
    VIEW, events=EVENTS, columns=("state",), indexes=index_entries, history=create_entry
)


@CUSTOMERS.on(events.CustomerRegistered)
def registered(customer: views.Customer, event: events.CustomerRegistered) -> None:
    customer.customer_id = event.customer_id
    customer.state = views.Customer.STATE_OPEN
    customer.name, customer.email = event.personal.name, event.personal.email
    customer.register_time.CopyFrom(event.registered_at)


@CUSTOMERS.on(events.NameChanged)
def name_changed(customer: views.Customer, event: events.NameChanged) -> None:
    customer.name = event.personal.name


@CUSTOMERS.on(events.EmailChangeRequested)
def email_change_requested(customer: views.Customer, event: events.EmailChangeRequested) -> None:
    customer.pending_email.email = event.personal.email
    customer.pending_email.expire_time.CopyFrom(event.expires_at)


@CUSTOMERS.on(events.EmailChanged)
def email_changed(customer: views.Customer, event: events.EmailChanged) -> None:
    customer.email = event.personal.email
    customer.ClearField("pending_email")


@CUSTOMERS.on(events.AddressAdded)
def address_added(customer: views.Customer, event: events.AddressAdded) -> None:
    customer.addresses.add(address_id=event.address_id, address=event.personal.address)


@CUSTOMERS.on(events.AddressRemoved)
def address_removed(customer: views.Customer, event: events.AddressRemoved) -> None:
    others = [entry for entry in customer.addresses if entry.address_id != event.address_id]
    del customer.addresses[:]
    customer.addresses.extend(others)


@CUSTOMERS.on(events.CustomerClosed)
def closed(customer: views.Customer, event: events.CustomerClosed) -> None:
    customer.state = views.Customer.STATE_CLOSED
    customer.ClearField("pending_email")
    customer.close_time.CopyFrom(event.closed_at)
