"""The steps of a fulfilment: each a request to ordering, inventory or banking, made of what is known."""

from datetime import datetime, timedelta
from uuid import UUID, uuid5

from diptych.banking.v1 import command_service_pb2 as banking
from diptych.inventory.v1 import command_service_pb2 as inventory
from diptych.inventory.v1.types_pb2 import ReservationLine
from diptych.ordering.v1 import command_service_pb2 as ordering
from diptych.ordering.v1 import query_service_pb2 as queries
from google.type.money_pb2 import Money

from process_manager.saga import Send
from process_manager.sagas.fulfilment.facts import Fulfilment

RESERVED_FOR = timedelta(hours=1)
"""The deadline of what is reserved and held; it outlasts the time in which an order is confirmed."""
EARLIER = 100
"""How many of the customer's orders are looked at."""
LONGEST_REASON = 500
IDS = UUID("7be3c5e2-55b6-5b8e-9c0d-0f6a3b1d7a44")
"""The namespace of the ids of reservations and holds, which are made of the order's and the round."""

# About the order.


def assess(known: Fulfilment) -> Send:
    """Look at what the customer has ordered before."""
    return Send("assess", queries.ListOrdersRequest(customer_id=known.customer_id, page_size=EARLIER))


def hold_order(known: Fulfilment) -> Send:
    """Have somebody look at the order."""
    request = ordering.HoldOrderRequest(order_id=known.order_id, reason=known.suspicion[:LONGEST_REASON])
    return Send(f"hold_order-{known.version}", request)


def confirm(known: Fulfilment) -> Send:
    """Confirm the order as it is known; it may have changed meanwhile."""
    request = ordering.ConfirmOrderRequest(order_id=known.order_id, expected_version=known.version)
    return Send(f"confirm-{known.version}", request)


def reject(known: Fulfilment) -> Send:
    """Tell the order why it ends."""
    request = ordering.RejectOrderRequest(order_id=known.order_id, reason=known.refused[:LONGEST_REASON])
    return Send(f"reject-{known.version}", request)


# About stock.


def reserve(known: Fulfilment, at: datetime) -> Send:
    """Reserve all lines, those of the same sku and warehouse together."""
    request = inventory.ReserveStockRequest(reservation_id=reservation_id(known))
    for (sku, warehouse_id), quantity in known.pieces.items():
        request.lines.append(ReservationLine(sku=sku, warehouse_id=warehouse_id, quantity=quantity))
    request.deadline.FromDatetime(at + RESERVED_FOR)
    return Send(f"reserve-{known.round}", request)


def firm_stock(known: Fulfilment) -> Send:
    """Let the reservation outlast its deadline."""
    request = inventory.FirmReservationRequest(reservation_id=reservation_id(known))
    return Send(f"firm_stock-{known.round}", request)


def release_stock(known: Fulfilment) -> Send:
    """Let go what is reserved."""
    request = inventory.ReleaseReservationRequest(reservation_id=reservation_id(known), reason=_why(known))
    return Send(f"release_stock-{known.round}", request)


def commit_stock(known: Fulfilment) -> Send:
    """Let the goods leave."""
    return Send("commit_stock", inventory.CommitReservationRequest(reservation_id=reservation_id(known)))


def restock(known: Fulfilment) -> Send:
    """Put the next of a returned order's goods into stock."""
    (sku, warehouse_id), quantity = list(known.pieces.items())[known.restocked]
    request = inventory.ReceiveStockRequest(
        sku=sku,
        warehouse_id=warehouse_id,
        quantity=quantity,
        purchase_order="return",
        delivery_note=known.order_id,
    )
    return Send(f"restock-{known.restocked + 1}", request)


# About money.


def hold_money(known: Fulfilment, at: datetime) -> Send:
    """Hold what the order comes to."""
    request = banking.PlaceHoldRequest(
        hold_id=hold_id(known),
        account_id=known.account_id,
        amount=_amount(known),
        reference=f"order {known.order_id}",
    )
    request.deadline.FromDatetime(at + RESERVED_FOR)
    return Send(f"hold_money-{known.round}", request)


def firm_money(known: Fulfilment) -> Send:
    """Let the hold outlast its deadline."""
    return Send(f"firm_money-{known.round}", banking.FirmHoldRequest(hold_id=hold_id(known)))


def release_money(known: Fulfilment) -> Send:
    """Let go what is held."""
    request = banking.ReleaseHoldRequest(hold_id=hold_id(known), reason=_why(known))
    return Send(f"release_money-{known.round}", request)


def capture_money(known: Fulfilment) -> Send:
    """Take what is held."""
    return Send("capture_money", banking.CaptureHoldRequest(hold_id=hold_id(known)))


def refund(known: Fulfilment) -> Send:
    """Give the money of a returned order back."""
    request = banking.DepositRequest(
        account_id=known.account_id,
        amount=_amount(known),
        reference=f"refund of order {known.order_id}",
    )
    return Send("refund", request)


def reservation_id(known: Fulfilment) -> str:
    """Return the id of the reservation of this round."""
    return str(uuid5(IDS, f"reservation/{known.order_id}/{known.round}"))


def hold_id(known: Fulfilment) -> str:
    """Return the id of the hold of this round."""
    return str(uuid5(IDS, f"hold/{known.order_id}/{known.round}"))


def _amount(known: Fulfilment) -> Money:
    return Money(currency_code=known.currency_code, units=known.units, nanos=known.nanos)


def _why(known: Fulfilment) -> str:
    return (known.refused or f"the order is {known.order.lower()}")[:LONGEST_REASON]
