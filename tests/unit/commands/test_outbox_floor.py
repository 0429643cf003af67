from command_server.relay.outbox import Snapshot
from command_server.relay.outbox_floor import AGE, Floor


def over(transactions: int, under_way: int = 0) -> Snapshot:
    """All of these transactions are over, except for the last few."""
    return Snapshot(transactions - under_way + 1, transactions + 1)


def test_the_floor_rises_once_all_transactions_of_a_position_s_time_were_over_before_a_look() -> None:
    floor = Floor()
    floor.note(100, 0.0, over(9, under_way=2))
    floor.note(200, AGE, over(20))
    assert floor.position == 0, "what ended after the look may hold a position below"
    floor.note(300, AGE + 1, over(30))
    assert floor.position == 100


def test_the_floor_stays_while_a_transaction_that_may_hold_a_lower_position_is_under_way() -> None:
    floor = Floor()
    floor.note(100, 0.0, over(9, under_way=2))
    for minute in range(1, 300):
        floor.note(100 + minute, 60.0 * minute, Snapshot(8, 1_000 + minute))
        assert floor.position == 0
    floor.note(500, 60.0 * 300, over(2_000))
    floor.note(500, 60.0 * 301, over(2_000))
    assert floor.position > 100


def test_the_floor_stays_while_a_position_is_young() -> None:
    floor = Floor()
    for tenth in range(int(AGE * 10)):
        floor.note(100, tenth / 10, over(7))
        assert floor.position == 0
    floor.note(100, AGE, over(7))
    assert floor.position == 100


def test_the_floor_stays_below_what_a_full_look_did_not_reach() -> None:
    floor = Floor()
    floor.note(5_000, 0.0, over(7))
    floor.note(1_000, AGE, over(7))
    floor.note(2_000, AGE + 1, over(7))
    assert floor.position == 0
    floor.note(5_000, AGE + 2, over(7))
    assert floor.position == 5_000
