"""The state diagrams in the documentation are what the rules do."""

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
from tests.support.builders.bank import bank, eur, hold
from tests.support.builders.warehouse import reserve, world
from tests.support.models.diagrams import drawn, found

LATE = timedelta(hours=2)
"""After every deadline."""


def test_holds_and_transfers_are_as_drawn() -> None:
    place, firm, capture = hold("h-1", 3), FirmHold("h-1"), CaptureHold("h-1", None)
    release, expire = ReleaseHold("h-1", "over"), ExpireHold("h-1")
    holds = found(
        lambda: bank(a=10),
        HOLD.stream("h-1"),
        {
            "[*]": [],
            "OPEN": [place],
            "FIRM": [place, firm],
            "CAPTURED": [place, capture],
            "RELEASED": [place, release],
        },
        [place, firm, capture, release, expire],
        LATE,
    )
    make = Transfer("t-1", "a", "b", eur(1), "rent")
    ask = RequestTransfer("t-1", "a", "b", eur(1), "rent", caller="ada")
    approve, decline = ApproveTransfer("t-1", caller="bob"), DeclineTransfer("t-1", "no", caller="bob")
    transfers = found(
        lambda: bank(a=10, b=0),
        TRANSFER.stream("t-1"),
        {"[*]": [], "REQUESTED": [ask], "MADE": [make], "DECLINED": [ask, decline]},
        [make, ask, approve, decline],
        LATE,
    )
    assert {*holds, *transfers} == drawn("banking.md")


def test_reservations_are_as_drawn() -> None:
    make, firm, commit = reserve("r-1", 3), FirmReservation("r-1"), CommitReservation("r-1")
    release, expire = ReleaseReservation("r-1", "over"), ExpireReservation("r-1")
    edges = found(
        lambda: world(on_hand=10),
        RESERVATION.stream("r-1"),
        {
            "[*]": [],
            "OPEN": [make],
            "FIRM": [make, firm],
            "COMMITTED": [make, commit],
            "RELEASED": [make, release],
        },
        [make, firm, commit, release, expire],
        LATE,
    )
    assert set(edges) == drawn("inventory.md")
