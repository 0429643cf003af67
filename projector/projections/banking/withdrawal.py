"""The view of a withdrawal: every field of `diptych.banking.v1.Withdrawal`."""

from diptych.banking.v1 import events_pb2 as events
from diptych.banking.v1 import types_pb2 as views

from contracts.events.banking import EVENTS
from contracts.view_layout import View
from projector.archival import archival_by_end_time, ended_entries
from projector.projection import Projection

VIEW = View.of(views.Withdrawal)

WITHDRAWALS = Projection[views.Withdrawal](
    VIEW,
    events=EVENTS,
    columns=("state", "amount"),
    indexes=ended_entries(VIEW, "withdrawal_id"),
    archival=archival_by_end_time(VIEW),
)


@WITHDRAWALS.on(events.WithdrawalRequested)
def requested(withdrawal: views.Withdrawal, event: events.WithdrawalRequested) -> None:
    withdrawal.withdrawal_id = event.withdrawal_id
    withdrawal.state = views.Withdrawal.STATE_REQUESTED
    withdrawal.account_id = event.account_id
    withdrawal.owner_id = event.owner_id
    withdrawal.amount.CopyFrom(event.amount)
    withdrawal.reference = event.reference
    withdrawal.requested_by = event.requested_by
    withdrawal.create_time.CopyFrom(event.requested_at)


@WITHDRAWALS.on(events.WithdrawalApproved)
def approved(withdrawal: views.Withdrawal, event: events.WithdrawalApproved) -> None:
    withdrawal.state = views.Withdrawal.STATE_PAID
    withdrawal.decided_by = event.approved_by
    withdrawal.end_time.CopyFrom(event.approved_at)


@WITHDRAWALS.on(events.WithdrawalDeclined)
def declined(withdrawal: views.Withdrawal, event: events.WithdrawalDeclined) -> None:
    withdrawal.state = views.Withdrawal.STATE_DECLINED
    withdrawal.decided_by = event.declined_by
    withdrawal.decline_reason = event.reason
    withdrawal.end_time.CopyFrom(event.declined_at)
