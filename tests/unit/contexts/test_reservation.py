"""Rules of reservations: all lines or none, firm or expired, released or committed."""

from datetime import timedelta

import pytest

from command_server.contexts.inventory.domain.messages import (
    CommitReservation,
    ExpireReservation,
    FirmReservation,
    ReleaseReservation,
)
from command_server.contexts.inventory.domain.stock import stock_stream
from diptych_testing.scenario import NOW
from diptych_testing.world import World, names_of
from tests.support.builders.warehouse import (
    DEADLINE,
    ELSEWHERE,
    SKU,
    WAREHOUSE,
    get_levels,
    make_warehouse,
    receive,
    reserve,
)

FIRM, COMMIT, EXPIRE = FirmReservation("r-1"), CommitReservation("r-1"), ExpireReservation("r-1")
RELEASE = ReleaseReservation("r-1", "changed my mind")


@pytest.fixture
def world() -> World:
    """Ten pieces in WAREHOUSE, three of them reserved, and one reserved piece in ELSEWHERE."""
    world = make_warehouse(on_hand=10)
    world.execute(receive(1, warehouse=ELSEWHERE), reserve("r-1", 3, (SKU, ELSEWHERE, 1)))
    return world


def test_all_lines_are_reserved_or_none(world: World) -> None:
    assert (get_levels(world), get_levels(world, ELSEWHERE)) == ((10, 3, 0), (1, 1, 0))
    details = {"sku": SKU, "warehouse_id": ELSEWHERE, "requested": "1", "available": "0"}
    world.assert_rejected(reserve("r-2", 1, (SKU, ELSEWHERE, 1)), "STOCK_INSUFFICIENT", **details)
    world.assert_rejected(reserve("r-2", ("coffee", "w-9", 1)), "STOCK_INSUFFICIENT", available="0")


def test_the_last_piece_is_reserved_once(world: World) -> None:
    world.execute(reserve("r-2", 7))
    world.assert_rejected(reserve("r-3", 1), "STOCK_INSUFFICIENT", available="0")


def test_a_reservation_is_made_once(world: World) -> None:
    world.assert_unchanged(reserve("r-1", 3, (SKU, ELSEWHERE, 1)))
    world.assert_rejected(reserve("r-1", 4), "RESERVATION_EXISTS", reservation_id="r-1")
    later = reserve("r-1", 3, (SKU, ELSEWHERE, 1), deadline=DEADLINE + timedelta(1))
    world.assert_rejected(later, "RESERVATION_EXISTS")


def test_a_line_is_not_repeated(world: World) -> None:
    world.assert_rejected(reserve("r-2", 1, 2), "RESERVATION_LINE_REPEATED", sku=SKU, warehouse_id=WAREHOUSE)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(-1), timedelta(days=7, microseconds=1)])
def test_a_deadline_is_in_the_future_by_at_most_seven_days(world: World, ahead: timedelta) -> None:
    world.assert_rejected(reserve("r-2", 1, deadline=NOW + ahead), "RESERVATION_DEADLINE_INVALID")
    world.execute(reserve("r-2", 1, deadline=NOW + timedelta(days=7)))


def test_released_stock_is_available_again(world: World) -> None:
    assert names_of(world.execute(RELEASE))[0] == "ReservationReleased"
    assert (get_levels(world), get_levels(world, ELSEWHERE)) == ((10, 0, 0), (1, 0, 0))
    world.assert_unchanged(RELEASE)
    world.assert_unchanged(EXPIRE)
    for command in (FIRM, COMMIT):
        world.assert_rejected(command, "RESERVATION_ALREADY_RELEASED", reservation_id="r-1")


def test_committed_stock_leaves_the_warehouse(world: World) -> None:
    world.execute(COMMIT)
    assert (get_levels(world), get_levels(world, ELSEWHERE)) == ((7, 0, 0), (0, 0, 0))
    world.assert_unchanged(COMMIT)
    world.assert_unchanged(EXPIRE)
    for command in (FIRM, RELEASE):
        world.assert_rejected(command, "RESERVATION_ALREADY_COMMITTED", reservation_id="r-1")


def test_a_firm_reservation_has_no_deadline(world: World) -> None:
    world.execute(FIRM)
    world.now = DEADLINE + timedelta(1)
    world.assert_unchanged(FIRM)
    world.assert_unchanged(EXPIRE)
    assert get_levels(world) == (10, 3, 0)
    world.execute(COMMIT)
    assert get_levels(world) == (7, 0, 0)


def test_a_firm_reservation_can_be_released(world: World) -> None:
    world.execute(FIRM, RELEASE)
    assert get_levels(world) == (10, 0, 0)


@pytest.mark.parametrize("command", [FIRM, COMMIT])
def test_an_open_reservation_can_only_expire_after_its_deadline(
    world: World, command: FirmReservation | CommitReservation
) -> None:
    world.now = DEADLINE
    world.assert_rejected(command, "RESERVATION_EXPIRED", reservation_id="r-1", deadline=str(DEADLINE))
    assert names_of(world.execute(EXPIRE))[0] == "ReservationExpired"
    assert get_levels(world) == (10, 0, 0)


def test_before_its_deadline_a_reservation_does_not_expire(world: World) -> None:
    world.assert_rejected(EXPIRE, "RESERVATION_NOT_EXPIRED", deadline=str(DEADLINE))
    world.now = DEADLINE - timedelta(microseconds=1)
    world.assert_rejected(EXPIRE, "RESERVATION_NOT_EXPIRED")


@pytest.mark.parametrize("command", [FIRM, COMMIT, EXPIRE, RELEASE], ids=lambda c: type(c).__name__)
def test_a_command_for_an_unknown_reservation_is_not_found(command: object) -> None:
    make_warehouse().assert_rejected(command, "RESERVATION_NOT_FOUND", reservation_id="r-1")


def test_a_stocks_state_does_not_grow_with_its_reservations() -> None:
    world = make_warehouse(on_hand=99_999)
    world.execute(*(reserve(f"r-{n}", 1) for n in range(10)))
    before = len(world.snapshot(stock_stream(SKU, WAREHOUSE)))
    world.execute(*(reserve(f"r-{n}", 1) for n in range(10, 10_000)))
    assert len(world.snapshot(stock_stream(SKU, WAREHOUSE))) == before + len("10000") - len("10")


def test_the_snapshots_of_a_reservation_decode(world: World) -> None:
    world.assert_snapshots_decode()
