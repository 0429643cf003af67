"""What inventory's rules say of reservations: all or nothing, firm or expired, released or committed."""

from datetime import timedelta

import pytest

from command_server.contexts.inventory.domain.messages import (
    CommitReservation,
    ExpireReservation,
    FirmReservation,
    ReleaseReservation,
)
from command_server.contexts.inventory.domain.stock import stock_stream
from tests.support.builders.warehouse import (
    DEADLINE,
    ELSEWHERE,
    SKU,
    WAREHOUSE,
    levels,
    receive,
    reserve,
    world,
)
from tests.support.harness.scenario import NOW
from tests.support.harness.world import World, kinds

FIRM, COMMIT, EXPIRE = FirmReservation("r-1"), CommitReservation("r-1"), ExpireReservation("r-1")
RELEASE = ReleaseReservation("r-1", "changed my mind")


@pytest.fixture
def made() -> World:
    """Ten pieces here, of which three are reserved; one elsewhere, which is, too."""
    made = world(on_hand=10)
    made.do(receive(1, warehouse=ELSEWHERE), reserve("r-1", 3, (SKU, ELSEWHERE, 1)))
    return made


def test_all_lines_are_reserved_or_none(made: World) -> None:
    assert (levels(made), levels(made, ELSEWHERE)) == ((10, 3, 0), (1, 1, 0))
    lacking = {"sku": SKU, "warehouse_id": ELSEWHERE, "requested": "1", "available": "0"}
    made.refuses(reserve("r-2", 1, (SKU, ELSEWHERE, 1)), "STOCK_INSUFFICIENT", **lacking)
    made.refuses(reserve("r-2", ("coffee", "w-9", 1)), "STOCK_INSUFFICIENT", available="0")


def test_the_last_piece_is_reserved_once(made: World) -> None:
    made.do(reserve("r-2", 7))
    made.refuses(reserve("r-3", 1), "STOCK_INSUFFICIENT", available="0")


def test_a_reservation_is_made_once(made: World) -> None:
    made.nothing(reserve("r-1", 3, (SKU, ELSEWHERE, 1)))
    made.refuses(reserve("r-1", 4), "RESERVATION_EXISTS", reservation_id="r-1")
    later = reserve("r-1", 3, (SKU, ELSEWHERE, 1), deadline=DEADLINE + timedelta(1))
    made.refuses(later, "RESERVATION_EXISTS")


def test_a_line_is_not_repeated(made: World) -> None:
    made.refuses(reserve("r-2", 1, 2), "RESERVATION_LINE_REPEATED", sku=SKU, warehouse_id=WAREHOUSE)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(-1), timedelta(days=7, microseconds=1)])
def test_a_deadline_lies_ahead_and_not_too_far(made: World, ahead: timedelta) -> None:
    made.refuses(reserve("r-2", 1, deadline=NOW + ahead), "RESERVATION_DEADLINE_INVALID")
    made.do(reserve("r-2", 1, deadline=NOW + timedelta(days=7)))


def test_what_is_released_is_available_again(made: World) -> None:
    assert kinds(made.do(RELEASE))[0] == "ReservationReleased"
    assert (levels(made), levels(made, ELSEWHERE)) == ((10, 0, 0), (1, 0, 0))
    made.nothing(RELEASE)
    made.nothing(EXPIRE)
    for command in (FIRM, COMMIT):
        made.refuses(command, "RESERVATION_ALREADY_RELEASED", reservation_id="r-1")


def test_what_is_committed_is_gone(made: World) -> None:
    made.do(COMMIT)
    assert (levels(made), levels(made, ELSEWHERE)) == ((7, 0, 0), (0, 0, 0))
    made.nothing(COMMIT)
    made.nothing(EXPIRE)
    for command in (FIRM, RELEASE):
        made.refuses(command, "RESERVATION_ALREADY_COMMITTED", reservation_id="r-1")


def test_a_firm_reservation_has_no_deadline(made: World) -> None:
    made.do(FIRM)
    made.now = DEADLINE + timedelta(1)
    made.nothing(FIRM)
    made.nothing(EXPIRE)
    assert levels(made) == (10, 3, 0)
    made.do(COMMIT)
    assert levels(made) == (7, 0, 0)


def test_a_firm_reservation_can_be_released(made: World) -> None:
    made.do(FIRM, RELEASE)
    assert levels(made) == (10, 0, 0)


@pytest.mark.parametrize("command", [FIRM, COMMIT])
def test_after_its_deadline_an_open_reservation_can_only_end(
    made: World, command: FirmReservation | CommitReservation
) -> None:
    made.now = DEADLINE
    made.refuses(command, "RESERVATION_EXPIRED", reservation_id="r-1", deadline=str(DEADLINE))
    assert kinds(made.do(EXPIRE))[0] == "ReservationExpired"
    assert levels(made) == (10, 0, 0)


def test_before_its_deadline_a_reservation_does_not_expire(made: World) -> None:
    made.refuses(EXPIRE, "RESERVATION_NOT_EXPIRED", deadline=str(DEADLINE))
    made.now = DEADLINE - timedelta(microseconds=1)
    made.refuses(EXPIRE, "RESERVATION_NOT_EXPIRED")


@pytest.mark.parametrize("command", [FIRM, COMMIT, EXPIRE, RELEASE], ids=lambda c: type(c).__name__)
def test_what_was_never_reserved_is_not_found(command: object) -> None:
    world().refuses(command, "RESERVATION_NOT_FOUND", reservation_id="r-1")


def test_a_stocks_state_does_not_grow_with_its_reservations() -> None:
    made = world(on_hand=99_999)
    made.do(*(reserve(f"r-{n}", 1) for n in range(10)))
    before = len(made.snapshot(stock_stream(SKU, WAREHOUSE)))
    made.do(*(reserve(f"r-{n}", 1) for n in range(10, 10_000)))
    assert len(made.snapshot(stock_stream(SKU, WAREHOUSE))) == before + len("10000") - len("10")


def test_a_reservation_survives_being_kept(made: World) -> None:
    made.reloaded()
