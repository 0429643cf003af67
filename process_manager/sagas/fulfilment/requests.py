"""The steps of a fulfilment: requests to ordering, inventory and banking, built from its facts."""

from datetime import datetime, timedelta
from uuid import UUID, uuid5

from diptych.banking.v1 import command_service_pb2 as banking
from diptych.fulfilment.v1.command_service_pb2 import RecordFulfilmentRequest
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1.types_pb2 import RECEIPT_REASON_RETURN, ReservationLine
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1 import query_service_pb2 as ordering_queries
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from process_manager.saga import Send
from process_manager.sagas.fulfilment.facts import Fulfilment, is_timed_out

REQUESTS: tuple[type[Message], ...] = (
    ordering_queries.GetCustomerActivityRequest,  # of steps that an earlier release has sent
    ordering.AssessOrderRequest,
    ordering.HoldOrderRequest,
    ordering.ConfirmOrderRequest,
    ordering.RejectOrderRequest,
    inventory.ReserveStockRequest,
    inventory.FirmReservationRequest,
    inventory.ReleaseReservationRequest,
    inventory.CommitReservationRequest,
    inventory.ReceiveStockRequest,
    banking.PlaceHoldRequest,
    banking.FirmHoldRequest,
    banking.ReleaseHoldRequest,
    banking.CaptureHoldRequest,
    banking.PayRefundRequest,
    RecordFulfilmentRequest,
)
"""The types of all requests below, and of the records of progress.py."""
CLAIM_LIFETIME = timedelta(hours=1)
"""Time until the deadline of a reservation or hold; longer than the time allowed for confirming an order."""
MAX_REASON_LENGTH = 500
CLAIM_ID_NAMESPACE = UUID("7be3c5e2-55b6-5b8e-9c0d-0f6a3b1d7a44")

# Requests to ordering. Names of steps contain the order's version: after a rejection, the same step may be
# necessary again at a later version.


def assess(fulfilment: Fulfilment) -> Send:
    """Assess the order as it is."""
    version = fulfilment.version_to_assess
    request = ordering.AssessOrderRequest(
        customer_id=fulfilment.customer_id, order_id=fulfilment.order_id, order_version=version
    )
    # An earlier release has named its steps `assess` and `assess-2`.
    return Send(f"assess-v{version}", request)


def hold_order(fulfilment: Fulfilment) -> Send:
    """Put the order up for review by a person, unless it is at a later version: it may have been reviewed."""
    reason, version = fulfilment.suspicion[:MAX_REASON_LENGTH], fulfilment.order_version
    request = ordering.HoldOrderRequest(order_id=fulfilment.order_id, reason=reason, expected_version=version)
    return Send(f"hold_order-{version}", request)


def confirm(fulfilment: Fulfilment) -> Send:
    """Confirm the order at the version of its last received event; at a later version it rejects the step."""
    version = fulfilment.order_version
    request = ordering.ConfirmOrderRequest(order_id=fulfilment.order_id, expected_version=version)
    return Send(f"confirm-{version}", request)


def reject(fulfilment: Fulfilment) -> Send:
    """Reject the order; one whose time is up only at the version for which that was found."""
    reason = fulfilment.rejection_reason[:MAX_REASON_LENGTH]
    request = ordering.RejectOrderRequest(order_id=fulfilment.order_id, reason=reason)
    if is_timed_out(fulfilment):
        request.expected_version = fulfilment.order_version
    return Send(f"reject-{fulfilment.order_version}", request)


# Requests to inventory.


def reserve(fulfilment: Fulfilment, at: datetime) -> Send:
    """Reserve the stock of all lines; lines of the same sku and warehouse become one."""
    request = inventory.ReserveStockRequest(reservation_id=derive_reservation_id(fulfilment))
    for (sku, warehouse_id), quantity in fulfilment.quantities.items():
        request.lines.append(ReservationLine(sku=sku, warehouse_id=warehouse_id, quantity=quantity))
    request.deadline.FromDatetime(at + CLAIM_LIFETIME)
    return Send(f"reserve-{fulfilment.generation}", request)


def firm_stock(fulfilment: Fulfilment) -> Send:
    """Remove the reservation's deadline."""
    request = inventory.FirmReservationRequest(reservation_id=derive_reservation_id(fulfilment))
    return Send(f"firm_stock-{fulfilment.generation}", request)


def release_stock(fulfilment: Fulfilment) -> Send:
    request = inventory.ReleaseReservationRequest(
        reservation_id=derive_reservation_id(fulfilment), reason=_build_release_reason(fulfilment)
    )
    return Send(f"release_stock-{fulfilment.generation}", request)


def commit_stock(fulfilment: Fulfilment) -> Send:
    """Take the reserved goods out of stock."""
    request = inventory.CommitReservationRequest(reservation_id=derive_reservation_id(fulfilment))
    return Send("commit_stock", request)


def restock(fulfilment: Fulfilment) -> Send:
    """Return the next of a returned order's goods to stock."""
    (sku, warehouse_id), quantity = list(fulfilment.quantities.items())[fulfilment.restocked]
    request = inventory.ReceiveStockRequest(
        sku=sku,
        warehouse_id=warehouse_id,
        quantity=quantity,
        reason=RECEIPT_REASON_RETURN,
        delivery_note=fulfilment.order_id,
    )
    return Send(f"restock-{fulfilment.restocked + 1}", request)


# Requests to banking.


def hold_money(fulfilment: Fulfilment, at: datetime) -> Send:
    """Hold the order's total on the paying account."""
    request = banking.PlaceHoldRequest(
        hold_id=derive_hold_id(fulfilment),
        account_id=fulfilment.account_id,
        amount=_build_total(fulfilment),
        reference=f"order {fulfilment.order_id}",
        customer_id=fulfilment.customer_id,
    )
    request.deadline.FromDatetime(at + CLAIM_LIFETIME)
    return Send(f"hold_money-{fulfilment.generation}", request)


def firm_money(fulfilment: Fulfilment) -> Send:
    """Remove the hold's deadline."""
    request = banking.FirmHoldRequest(hold_id=derive_hold_id(fulfilment))
    return Send(f"firm_money-{fulfilment.generation}", request)


def release_money(fulfilment: Fulfilment) -> Send:
    request = banking.ReleaseHoldRequest(
        hold_id=derive_hold_id(fulfilment), reason=_build_release_reason(fulfilment)
    )
    return Send(f"release_money-{fulfilment.generation}", request)


def capture_money(fulfilment: Fulfilment) -> Send:
    return Send("capture_money", banking.CaptureHoldRequest(hold_id=derive_hold_id(fulfilment)))


def refund(fulfilment: Fulfilment) -> Send:
    """Pay the total of a returned order back into the account that paid."""
    request = banking.PayRefundRequest(
        refund_id=derive_refund_id(fulfilment),
        account_id=fulfilment.account_id,
        amount=_build_total(fulfilment),
        reference=f"refund of order {fulfilment.order_id}",
    )
    return Send("refund", request)


def derive_reservation_id(fulfilment: Fulfilment) -> str:
    """Return the id of this generation's reservation."""
    name = f"reservation/{fulfilment.order_id}/{fulfilment.generation}"
    return str(uuid5(CLAIM_ID_NAMESPACE, name))


def derive_hold_id(fulfilment: Fulfilment) -> str:
    """Return the id of this generation's hold."""
    return str(uuid5(CLAIM_ID_NAMESPACE, f"hold/{fulfilment.order_id}/{fulfilment.generation}"))


def derive_refund_id(fulfilment: Fulfilment) -> str:
    """Return the id of the refund of what this generation's hold has paid."""
    return str(uuid5(CLAIM_ID_NAMESPACE, f"refund/{fulfilment.order_id}/{fulfilment.generation}"))


def _build_total(fulfilment: Fulfilment) -> Money:
    return Money(currency_code=fulfilment.currency_code, units=fulfilment.units, nanos=fulfilment.nanos)


def _build_release_reason(fulfilment: Fulfilment) -> str:
    reason = fulfilment.rejection_reason or f"the order is {fulfilment.order_status.lower()}"
    return reason[:MAX_REASON_LENGTH]
