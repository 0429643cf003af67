"""The view of a mandate: every field of `diptych.banking.v1.Mandate`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views
from google.type.money_pb2 import Money

from contracts.events.banking import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.Mandate)


def index_entries(mandate: views.Mandate) -> list[Entry]:
    """List mandates by owner, by account, by both, and all together."""
    member = index_member(mandate.create_time.ToMicroseconds(), mandate.mandate_id)
    return [
        (VIEW.index("all"), member),
        (VIEW.index("owner", mandate.owner_id), member),
        (VIEW.index("account", mandate.account_id), member),
        (VIEW.index("owner_account", mandate.owner_id, mandate.account_id), member),
    ]


MANDATES = Projection[views.Mandate](
    VIEW, events=EVENTS, columns=("state", "account_id", "customer_id", "used"), indexes=index_entries
)


@MANDATES.on(events.MandateGranted)
def granted(mandate: views.Mandate, event: events.MandateGranted) -> None:
    if not mandate.mandate_id:
        mandate.mandate_id = event.mandate_id
        mandate.account_id = event.account_id
        mandate.owner_id = event.owner_id
        mandate.customer_id = event.customer_id
        mandate.used.CopyFrom(Money(currency_code=event.total_limit.currency_code))
        mandate.create_time.CopyFrom(event.granted_at)
    mandate.state = views.Mandate.STATE_GRANTED
    mandate.order_limit.CopyFrom(event.order_limit)
    mandate.total_limit.CopyFrom(event.total_limit)
    mandate.until.CopyFrom(event.until)


@MANDATES.on(events.MandateRevoked)
def revoked(mandate: views.Mandate, event: events.MandateRevoked) -> None:
    mandate.state = views.Mandate.STATE_REVOKED
    mandate.revoke_time.CopyFrom(event.revoked_at)


@MANDATES.on(events.MandateUsed)
def used(mandate: views.Mandate, event: events.MandateUsed) -> None:
    mandate.used.CopyFrom(event.used)


@MANDATES.on(events.MandateFreed)
def freed(mandate: views.Mandate, event: events.MandateFreed) -> None:
    mandate.used.CopyFrom(event.used)
