"""The floor of the outbox rises only when no lower position can become pending."""

from command_server.relay.outbox_floor import MIN_AGE, OutboxFloor
from command_server.relay.outbox_rows import TransactionSnapshot


def snapshot(transactions: int, running: int = 0) -> TransactionSnapshot:
    """Return a snapshot after this many transactions, of which the last `running` have not ended."""
    return TransactionSnapshot(transactions - running + 1, transactions + 1)


def test_the_floor_rises_after_a_read_that_follows_all_transactions() -> None:
    floor = OutboxFloor()
    floor.observe(100, 0.0, snapshot(9, running=2))
    floor.observe(200, MIN_AGE, snapshot(20))
    assert floor.position == 0, "a transaction that ended after the read may hold a lower position"
    floor.observe(300, MIN_AGE + 1, snapshot(30))
    assert floor.position == 100


def test_the_floor_waits_for_a_transaction_that_may_hold_a_lower_position() -> None:
    floor = OutboxFloor()
    floor.observe(100, 0.0, snapshot(9, running=2))
    for minute in range(1, 300):
        floor.observe(100 + minute, 60.0 * minute, TransactionSnapshot(8, 1_000 + minute))
        assert floor.position == 0
    floor.observe(500, 60.0 * 300, snapshot(2_000))
    floor.observe(500, 60.0 * 301, snapshot(2_000))
    assert floor.position > 100


def test_the_floor_waits_for_the_minimum_age_of_an_observation() -> None:
    floor = OutboxFloor()
    for tenth in range(int(MIN_AGE * 10)):
        floor.observe(100, tenth / 10, snapshot(7))
        assert floor.position == 0
    floor.observe(100, MIN_AGE, snapshot(7))
    assert floor.position == 100


def test_the_floor_stays_below_positions_that_a_full_batch_did_not_reach() -> None:
    floor = OutboxFloor()
    floor.observe(5_000, 0.0, snapshot(7))
    floor.observe(1_000, MIN_AGE, snapshot(7))
    floor.observe(2_000, MIN_AGE + 1, snapshot(7))
    assert floor.position == 0
    floor.observe(5_000, MIN_AGE + 2, snapshot(7))
    assert floor.position == 5_000
