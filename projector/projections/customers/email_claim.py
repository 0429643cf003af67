"""The view of an email claim, by which queries find the customer with an address."""

from diptych.customers.v1 import events_pb2 as events
from diptych.customers.v1 import types_pb2 as views

from contracts.events.customers import EVENTS
from contracts.view_layout import View
from projector.projection import Projection

VIEW = View.of(views.EmailClaim)
EMAIL_CLAIMS = Projection[views.EmailClaim](VIEW, events=EVENTS, columns=("customer_id",))


@EMAIL_CLAIMS.on(events.EmailClaimed)
def claimed(claim: views.EmailClaim, event: events.EmailClaimed) -> None:
    claim.claim_id, claim.customer_id = event.claim_id, event.customer_id


@EMAIL_CLAIMS.on(events.EmailFreed)
def freed(claim: views.EmailClaim, _: events.EmailFreed) -> None:
    claim.customer_id = ""
