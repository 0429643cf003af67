"""The progress of a fulfilment that callers see: each change of it is recorded by a command.

The record is a step beside the plan: nothing waits for its answer, and one that a later record overtakes
changes nothing. What changes within the preparation of an order is not recorded, since it takes a moment.

The number of a record is the time of its input. So it rises even if a manager of an earlier release, which
does not know the last one, writes the state in between.
"""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from diptych.fulfilment.v1.command_service_pb2 import RecordFulfilmentRequest
from diptych.fulfilment.v1.types_pb2 import Fulfilment as View
from msgspec.structs import replace

from process_manager.saga import SagaStatus, Send
from process_manager.sagas.fulfilment.facts import ClaimState, Fulfilment
from process_manager.sagas.fulfilment.requests import derive_hold_id, derive_reservation_id

RECORD = "record"
MAX_LENGTH = 500
"""Characters of a text in a record."""
PREPARING = "PREPARING"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RECORD_FORMAT = 1
"""Incremented when a record says more than before, so that open fulfilments are recorded again. 1 has the
customer."""


def record(fulfilment: Fulfilment, status: SagaStatus, at: datetime) -> tuple[Fulfilment, list[Send]]:
    """Return the step that records the progress, if it has changed, and the fulfilment with a note of it."""
    if not fulfilment.order_id:  # only an assessment has arrived
        return fulfilment, []
    request = build_record(fulfilment, status)
    digest = blake2b(request.SerializeToString(deterministic=True), digest_size=8).hexdigest()
    if (digest, RECORD_FORMAT) == (fulfilment.recorded, fulfilment.record_format):
        return fulfilment, []
    number = max(fulfilment.record_number + 1, (at - EPOCH) // timedelta(microseconds=1))
    request.number = number
    noted = replace(fulfilment, record_number=number, recorded=digest, record_format=RECORD_FORMAT)
    return noted, [Send(f"{RECORD}-{number}", request)]


def is_unrecorded(fulfilment: Fulfilment) -> bool:
    """Return whether an earlier release has written the state, so that no such record was sent."""
    return bool(fulfilment.order_id) and fulfilment.record_format < RECORD_FORMAT


def build_record(fulfilment: Fulfilment, status: SagaStatus) -> RecordFulfilmentRequest:
    """Return the record without its number."""
    is_preparing = status.state == PREPARING
    limit = status.max_duration
    return RecordFulfilmentRequest(
        order_id=fulfilment.order_id,
        customer_id=fulfilment.customer_id,
        order_version=fulfilment.order_version,
        state=View.State.Value(f"STATE_{status.state}"),
        waiting_for="" if is_preparing else status.waiting_for[:MAX_LENGTH],
        rejection=fulfilment.rejection_reason[:MAX_LENGTH],
        suspicion=fulfilment.suspicion[:MAX_LENGTH],
        blocked_reason=status.blocked_reason[:MAX_LENGTH],
        reservation_id=_select(fulfilment.stock, derive_reservation_id(fulfilment), is_preparing),
        hold_id=_select(fulfilment.money, derive_hold_id(fulfilment), is_preparing),
        max_seconds=0 if limit is None else int(limit.total_seconds()),
    )


def _select(claim: ClaimState, id_: str, is_preparing: bool) -> str:
    return "" if is_preparing or claim == ClaimState.NONE else id_
