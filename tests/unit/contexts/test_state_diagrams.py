"""The state diagrams of the documentation show exactly the transitions that the rules allow."""

from datetime import timedelta
from typing import Any

from command_server.contexts.banking.domain.case import CASE, make_case_id
from command_server.contexts.banking.domain.case_messages import ClearCase, ConfirmCase
from command_server.contexts.banking.domain.hold import HOLD
from command_server.contexts.banking.domain.mandate import MANDATE, make_mandate_id
from command_server.contexts.banking.domain.mandate_messages import GrantMandate, RevokeMandate
from command_server.contexts.banking.domain.messages import (
    ApproveTransfer,
    CaptureHold,
    DeclineTransfer,
    ExpireHold,
    FirmHold,
    ReleaseHold,
    RequestTransfer,
)
from command_server.contexts.banking.domain.overdraft import OVERDRAFT
from command_server.contexts.banking.domain.overdraft_messages import (
    ApproveOverdraft,
    DeclineOverdraft,
    RequestOverdraft,
)
from command_server.contexts.banking.domain.transfer import TRANSFER
from command_server.contexts.banking.domain.withdrawal import WITHDRAWAL
from command_server.contexts.banking.domain.withdrawal_messages import (
    ApproveWithdrawal,
    DeclineWithdrawal,
    RequestWithdrawal,
)
from command_server.contexts.inventory.domain.messages import (
    CommitReservation,
    ExpireReservation,
    FirmReservation,
    ReleaseReservation,
)
from command_server.contexts.inventory.domain.purchase_messages import (
    CancelPurchaseOrder,
    ClosePurchaseOrder,
)
from command_server.contexts.inventory.domain.purchase_order import PURCHASE_ORDER
from command_server.contexts.inventory.domain.reservation import RESERVATION
from command_server.contexts.ticketing import CONTEXT as TICKETING
from command_server.contexts.ticketing.domain.booking import BOOKING
from command_server.contexts.ticketing.domain.messages import (
    BuySeats,
    CancelShow,
    ExpireSeats,
    FailPurchase,
    IssueTickets,
    RefundTickets,
    ReleaseSeats,
    ReturnTickets,
    SettleShow,
)
from command_server.contexts.ticketing.domain.show import SHOW
from diptych_testing.scenario import NOW
from diptych_testing.world import World
from tests.support.builders import purchasing, theatre
from tests.support.builders.bank import deposit, eur, hold, make_bank, transfer
from tests.support.builders.warehouse import SKU, make_warehouse, reserve
from tests.support.models.diagrams import find_transitions, read_diagram

AFTER_DEADLINES = timedelta(hours=2)
"""A time later than every deadline."""


def test_holds_transfers_and_withdrawals_match_their_diagrams() -> None:
    place, firm, capture = hold("h-1", 3), FirmHold("h-1"), CaptureHold("h-1", None)
    release, expire = ReleaseHold("h-1", "over"), ExpireHold("h-1")
    holds = find_transitions(
        lambda: make_bank(a=10),
        HOLD.stream("h-1"),
        {
            "[*]": [],
            "OPEN": [place],
            "FIRM": [place, firm],
            "CAPTURED": [place, capture],
            "RELEASED": [place, release],
        },
        [place, firm, capture, release, expire],
        AFTER_DEADLINES,
    )
    make = transfer("t-1", 1)
    request = RequestTransfer("t-1", "a", "b", eur(1), "rent", caller="ada")
    approve, decline = ApproveTransfer("t-1", caller="bob"), DeclineTransfer("t-1", "no", caller="bob")
    transfers = find_transitions(
        lambda: make_bank(a=10, b=0),
        TRANSFER.stream("t-1"),
        {"[*]": [], "REQUESTED": [request], "MADE": [make], "DECLINED": [request, decline]},
        [make, request, approve, decline],
        AFTER_DEADLINES,
    )
    ask = RequestWithdrawal("w-1", "a", eur(1), "cash", caller="ada")
    agree, refuse = ApproveWithdrawal("w-1", caller="bob"), DeclineWithdrawal("w-1", "no", caller="bob")
    withdrawals = find_transitions(
        lambda: make_bank(a=10),
        WITHDRAWAL.stream("w-1"),
        {"[*]": [], "REQUESTED": [ask], "PAID": [ask, agree], "DECLINED": [ask, refuse]},
        [ask, agree, refuse],
        AFTER_DEADLINES,
    )
    grant = GrantMandate("a", "bob", eur(1), eur(1), NOW + timedelta(days=1))
    revoke = RevokeMandate(make_mandate_id("a", "bob"))
    mandates = find_transitions(
        lambda: make_bank(a=10),
        MANDATE.stream(revoke.mandate_id),
        {"[*]": [], "GRANTED": [grant], "REVOKED": [grant, revoke]},
        [grant, revoke],
        AFTER_DEADLINES,
    )
    large = deposit("a", 10_000)
    case_id = make_case_id(large.caller, large.request_id)
    clear, confirm = ClearCase(case_id, "fine", "officer"), ConfirmCase(case_id, "bad", "officer")
    statuses: dict[str, list[Any]] = {
        "[*]": [],
        "OPEN": [large],
        "CLEARED": [large, clear],
        "CONFIRMED": [large, confirm],
    }
    cases = [  # a request opens a case once
        *find_transitions(
            lambda: make_bank(a=10), CASE.stream(case_id), {"[*]": []}, [large], AFTER_DEADLINES
        ),
        *find_transitions(
            lambda: make_bank(a=10), CASE.stream(case_id), statuses, [clear, confirm], AFTER_DEADLINES
        ),
    ]
    want = RequestOverdraft("l-1", "a", eur(20_000), caller="ada")
    allow, deny = ApproveOverdraft("l-1", caller="bob"), DeclineOverdraft("l-1", "no", caller="bob")
    overdrafts = find_transitions(
        lambda: make_bank(a=10),
        OVERDRAFT.stream("l-1"),
        {"[*]": [], "REQUESTED": [want], "APPROVED": [want, allow], "DECLINED": [want, deny]},
        [want, allow, deny],
        AFTER_DEADLINES,
    )
    found = {*holds, *transfers, *withdrawals, *mandates, *cases, *overdrafts}
    assert found == read_diagram("banking.md")


def test_reservations_and_purchase_orders_match_their_diagrams() -> None:
    make, firm, commit = reserve("r-1", 3), FirmReservation("r-1"), CommitReservation("r-1")
    release, expire = ReleaseReservation("r-1", "over"), ExpireReservation("r-1")
    transitions = find_transitions(
        lambda: make_warehouse(on_hand=10),
        RESERVATION.stream("r-1"),
        {
            "[*]": [],
            "OPEN": [make],
            "FIRM": [make, firm],
            "COMMITTED": [make, commit],
            "RELEASED": [make, release],
        },
        [make, firm, commit, release, expire],
        AFTER_DEADLINES,
    )
    raise_, send = purchasing.order(), purchasing.SEND
    part, rest = purchasing.goods("n-1", (SKU, 20)), purchasing.goods("n-2", (purchasing.OTHER_SKU, 5))
    close, cancel = ClosePurchaseOrder("p-1", "over"), CancelPurchaseOrder("p-1", "over")
    orders = find_transitions(
        purchasing.make_market,
        PURCHASE_ORDER.stream("p-1"),
        {
            "[*]": [],
            "RAISED": [purchasing.LARGE],
            "APPROVED": [raise_],
            "SENT": [raise_, send, part],
            "RECEIVED": [raise_, send, part, rest],
            "CLOSED": [raise_, send, part, close],
            "CANCELLED": [raise_, cancel],
        },
        [raise_, purchasing.LARGE, purchasing.APPROVE, send, part, rest, close, cancel],
        AFTER_DEADLINES,
    )
    untouched = find_transitions(
        purchasing.make_market,
        PURCHASE_ORDER.stream("p-1"),
        {"SENT": [raise_, send]},
        [close, cancel],
        AFTER_DEADLINES,
    )
    assert {*transitions, *orders, *untouched} == read_diagram("inventory.md")


def test_shows_and_bookings_match_their_diagrams() -> None:
    hold_seats, buy, issue = theatre.hold("b-1", 2), BuySeats("b-1", "a-1"), IssueTickets("b-1")
    release, expire, fail = ReleaseSeats("b-1", "over"), ExpireSeats("b-1"), FailPurchase("b-1", "no money")
    back, cancel, settle = ReturnTickets("b-1", "ill"), CancelShow("s-1", "rain"), SettleShow("s-1")
    shows = find_transitions(
        lambda: World(*TICKETING.deciders),
        SHOW.stream("s-1"),
        {
            "[*]": [],
            "SCHEDULED": [theatre.schedule()],
            "CANCELLED": [theatre.schedule(), cancel],
            "SETTLED": [theatre.schedule(), cancel, settle],
        },
        [theatre.schedule(), cancel, settle],
        AFTER_DEADLINES,
    )
    bookings: dict[str, list[Any]] = {
        "[*]": [],
        "HELD": [hold_seats],
        "PAYING": [hold_seats, buy],
        "SOLD": [hold_seats, buy, issue],
        "RETURNED": [hold_seats, buy, issue, back],
        "RELEASED": [hold_seats, release],
    }
    commands = [hold_seats, buy, issue, fail, release, expire, back]
    changes = find_transitions(
        theatre.make_theatre, BOOKING.stream("b-1"), bookings, commands, AFTER_DEADLINES
    )
    cancelled = find_transitions(
        theatre.make_theatre,
        BOOKING.stream("b-1"),
        {"SOLD": [*bookings["SOLD"], cancel]},
        [RefundTickets("b-1")],
        AFTER_DEADLINES,
    )
    assert {*shows, *changes, *cancelled} == read_diagram("ticketing.md")
