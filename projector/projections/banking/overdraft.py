"""The view of a requested overdraft limit: every field of `diptych.banking.v1.Overdraft`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views

from contracts.events.banking import EVENTS
from contracts.view_layout import View
from projector.archival import archival_by_end_time, ended_entries
from projector.projection import Projection

VIEW = View.of(views.Overdraft)

OVERDRAFTS = Projection[views.Overdraft](
    VIEW,
    events=EVENTS,
    columns=("state", "overdraft_limit"),
    indexes=ended_entries(VIEW, "overdraft_id"),
    archival=archival_by_end_time(VIEW),
)


@OVERDRAFTS.on(events.OverdraftRequested)
def requested(overdraft: views.Overdraft, event: events.OverdraftRequested) -> None:
    overdraft.overdraft_id = event.overdraft_id
    overdraft.state = views.Overdraft.STATE_REQUESTED
    overdraft.account_id = event.account_id
    overdraft.owner_id = event.owner_id
    overdraft.overdraft_limit.CopyFrom(event.overdraft_limit)
    overdraft.requested_by = event.requested_by
    overdraft.create_time.CopyFrom(event.requested_at)


@OVERDRAFTS.on(events.OverdraftApproved)
def approved(overdraft: views.Overdraft, event: events.OverdraftApproved) -> None:
    overdraft.state = views.Overdraft.STATE_APPROVED
    overdraft.decided_by = event.approved_by
    overdraft.end_time.CopyFrom(event.approved_at)


@OVERDRAFTS.on(events.OverdraftDeclined)
def declined(overdraft: views.Overdraft, event: events.OverdraftDeclined) -> None:
    overdraft.state = views.Overdraft.STATE_DECLINED
    overdraft.decided_by = event.declined_by
    overdraft.decline_reason = event.reason
    overdraft.end_time.CopyFrom(event.declined_at)
