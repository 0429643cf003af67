"""The view of a transfer: every field of `diptych.banking.v1.Transfer`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views

from contracts.events.banking import EVENTS
from contracts.view_layout import View
from projector.archival import archival_by_end_time, ended_entries
from projector.projection import Projection

VIEW = View.of(views.Transfer)

TRANSFERS = Projection[views.Transfer](
    VIEW,
    events=EVENTS,
    columns=("state", "amount"),
    indexes=ended_entries(VIEW, "transfer_id"),
    archival=archival_by_end_time(VIEW),
)


def _create(transfer: views.Transfer, event: events.TransferMade | events.TransferRequested) -> None:
    transfer.transfer_id = event.transfer_id
    transfer.from_account_id = event.from_account_id
    transfer.to_account_id = event.to_account_id
    transfer.amount.CopyFrom(event.amount)
    transfer.reference = event.reference
    transfer.owner_id = event.owner_id


@TRANSFERS.on(events.TransferMade)
def made(transfer: views.Transfer, event: events.TransferMade) -> None:
    _create(transfer, event)
    transfer.state = views.Transfer.STATE_MADE
    transfer.create_time.CopyFrom(event.made_at)
    transfer.end_time.CopyFrom(event.made_at)


@TRANSFERS.on(events.TransferRequested)
def requested(transfer: views.Transfer, event: events.TransferRequested) -> None:
    _create(transfer, event)
    transfer.state = views.Transfer.STATE_REQUESTED
    transfer.requested_by = event.requested_by
    transfer.create_time.CopyFrom(event.requested_at)


@TRANSFERS.on(events.TransferApproved)
def approved(transfer: views.Transfer, event: events.TransferApproved) -> None:
    transfer.state = views.Transfer.STATE_MADE
    transfer.decided_by = event.approved_by
    transfer.end_time.CopyFrom(event.approved_at)


@TRANSFERS.on(events.TransferDeclined)
def declined(transfer: views.Transfer, event: events.TransferDeclined) -> None:
    transfer.state = views.Transfer.STATE_DECLINED
    transfer.decided_by = event.declined_by
    transfer.decline_reason = event.reason
    transfer.end_time.CopyFrom(event.declined_at)
