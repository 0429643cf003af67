"""The state diagrams of the documentation show exactly the transitions that the rules allow."""

from datetime import timedelta

from command_server.contexts.banking.domain.hold import HOLD
from command_server.contexts.banking.domain.messages import (
    ApproveTransfer,
    CaptureHold,
    DeclineTransfer,
    ExpireHold,
    FirmHold,
    ReleaseHold,
    RequestTransfer,
    Transfer,
)
from command_server.contexts.banking.domain.transfer import TRANSFER
from command_server.contexts.inventory.domain.messages import (
    CommitReservation,
    ExpireReservation,
    FirmReservation,
    ReleaseReservation,
)
from command_server.contexts.inventory.domain.reservation import RESERVATION
from tests.support.builders.bank import eur, hold, make_bank
from tests.support.builders.warehouse import make_warehouse, reserve
from tests.support.models.diagrams import find_transitions, read_diagram

AFTER_DEADLINES = timedelta(hours=2)
"""A time later than every deadline."""


def test_holds_and_transfers_match_their_diagrams() -> None:
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
    make = Transfer("t-1", "a", "b", eur(1), "rent")
    request = RequestTransfer("t-1", "a", "b", eur(1), "rent", caller="ada")
    approve, decline = ApproveTransfer("t-1", caller="bob"), DeclineTransfer("t-1", "no", caller="bob")
    transfers = find_transitions(
        lambda: make_bank(a=10, b=0),
        TRANSFER.stream("t-1"),
        {"[*]": [], "REQUESTED": [request], "MADE": [make], "DECLINED": [request, decline]},
        [make, request, approve, decline],
        AFTER_DEADLINES,
    )
    assert {*holds, *transfers} == read_diagram("banking.md")


def test_reservations_match_their_diagram() -> None:
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
    assert set(transitions) == read_diagram("inventory.md")
