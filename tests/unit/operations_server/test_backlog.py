"""The events that projections lack, from rows of the outbox and checkpoints."""

from itertools import count

from contracts import streams
from operations_server.status.backlog import Feed, Row, count_unapplied
from operations_server.status.states import Unapplied

OLD, EPOCH = "old", "current"
ORDERS, STOCKS = "ordering.order", "inventory.stock"
ID = next(f"o-{n}" for n in count() if streams.partition(f"o-{n}") == 3)
OTHER = next(f"o-{n}" for n in count() if streams.partition(f"o-{n}") == 4)


def published(sequence: int, age: float, *, id_: str = ID, type_: str = ORDERS, epoch: str = EPOCH) -> Row:
    return epoch, sequence, f"{type_}.{id_}", age


def pending(age: float, *, id_: str = ID) -> Row:
    return "", None, f"{ORDERS}.{id_}", age


def count_for(rows: list[Row], feed: Feed, checkpoint: tuple[str, int]) -> Unapplied:
    checkpoints = dict.fromkeys(range(streams.PARTITIONS), checkpoint)
    return count_unapplied(rows, feed, {"orders": ((ORDERS,), checkpoints)})["orders"][3]


def test_events_above_the_checkpoint_of_their_partition_are_lacking() -> None:
    rows = [published(7, 9.0), published(8, 5.0), published(9, 4.0, id_=OTHER), published(10, 3.0)]
    assert count_for(rows, Feed(EPOCH, 10, 10), (EPOCH, 7)) == Unapplied(2, 5.0)
    assert count_for(rows, Feed(EPOCH, 10, 10), (EPOCH, 10)) == Unapplied()


def test_events_of_other_streams_are_not_counted() -> None:
    rows = [published(8, 5.0, type_=STOCKS), published(9, 4.0, id_=OTHER)]
    assert count_for(rows, Feed(EPOCH, 9, 9), (EPOCH, 7)) == Unapplied()


def test_an_unpublished_event_is_old_but_not_behind() -> None:
    rows = [published(8, 5.0), pending(3.0)]
    assert count_for(rows, Feed(EPOCH, 8, 8), (EPOCH, 8)) == Unapplied(0, 3.0)


def test_a_row_that_is_published_and_not_yet_marked_is_not_lacking() -> None:
    rows = [published(8, 5.0), pending(3.0), pending(2.0)]
    assert count_for(rows, Feed(EPOCH, 8, 9), (EPOCH, 9)) == Unapplied(0, 2.0)
    assert count_for(rows, Feed(EPOCH, 8, 10), (EPOCH, 9)) == Unapplied(1, 2.0)
    assert count_for(rows, Feed(EPOCH, 8, 10), (EPOCH, 10)) == Unapplied()


def test_a_checkpoint_of_an_earlier_stream_lacks_what_only_the_current_one_has() -> None:
    rows = [published(7, 9.0, epoch=OLD), published(8, 8.0, epoch=OLD), published(3, 5.0)]
    assert count_for(rows, Feed(EPOCH, 3, 3), (OLD, 7)) == Unapplied(2, 8.0)
    assert count_for(rows, Feed(EPOCH, 3, 3), (EPOCH, 2)) == Unapplied(1, 5.0)


def test_a_partition_without_a_checkpoint_lacks_everything() -> None:
    rows = [published(1, 9.0), pending(1.0)]
    unapplied = count_unapplied(rows, Feed(EPOCH, 1, 1), {"orders": ((ORDERS,), {})})
    assert unapplied["orders"][3] == Unapplied(1, 9.0)


def test_beyond_the_rows_that_were_read_the_number_is_estimated() -> None:
    rows = [
        published(sequence, 1000.0 - sequence, id_=ID if sequence % 2 else OTHER)
        for sequence in range(1, 101)
    ]
    unapplied = count_for(rows, Feed(EPOCH, 1000, 1000), (EPOCH, 0))
    assert unapplied == Unapplied(500, 999.0)
