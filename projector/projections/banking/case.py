"""The view of a case of compliance: every field of `diptych.banking.v1.Case`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views

from contracts.events.banking import EVENTS
from contracts.view_layout import View, index_member
from projector.projection import Entry, Projection

VIEW = View.of(views.Case)


def index_entries(case: views.Case) -> list[Entry]:
    """List cases by account, state and kind, by each combination of them, and all together."""
    member = index_member(case.open_time.ToMicroseconds(), case.case_id)
    account, state, kind = case.account_id, views.Case.State.Name(case.state), views.CaseKind.Name(case.kind)
    indexes = [
        ("all",),
        ("account", account),
        ("state", state),
        ("kind", kind),
        ("account_state", account, state),
        ("account_kind", account, kind),
        ("state_kind", state, kind),
        ("account_state_kind", account, state, kind),
    ]
    return [(VIEW.index(*values), member) for values in indexes]


CASES = Projection[views.Case](
    VIEW, events=EVENTS, columns=("state", "kind", "account_id", "caused_by"), indexes=index_entries
)


@CASES.on(events.CaseOpened)
def opened(case: views.Case, event: events.CaseOpened) -> None:
    case.case_id = event.case_id
    case.state = views.Case.STATE_OPEN
    case.kind = event.kind
    case.account_id = event.account_id
    case.owner_id = event.owner_id
    if event.HasField("amount"):
        case.amount.CopyFrom(event.amount)
    case.counterparty_name = event.counterparty_name
    case.caused_by = event.caused_by
    case.open_time.CopyFrom(event.opened_at)


@CASES.on(events.CaseCleared)
def cleared(case: views.Case, event: events.CaseCleared) -> None:
    case.state = views.Case.STATE_CLEARED
    case.decided_by = event.cleared_by
    case.reason = event.reason
    case.end_time.CopyFrom(event.cleared_at)


@CASES.on(events.CaseConfirmed)
def confirmed(case: views.Case, event: events.CaseConfirmed) -> None:
    case.state = views.Case.STATE_CONFIRMED
    case.decided_by = event.confirmed_by
    case.reason = event.reason
    case.end_time.CopyFrom(event.confirmed_at)
