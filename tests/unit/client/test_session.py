"""The last receipt of a connection is the newest one of its aggregate, in whatever order answers arrive."""

from itertools import permutations

import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt
from diptych_client.session import LastReceipt


def receipt(aggregate_id: str, version: int, seconds: int) -> Receipt:
    made = Receipt(aggregate_id=aggregate_id, version=version, consistency_token=f"{aggregate_id}@{version}")
    made.record_time.FromSeconds(seconds)
    return made


RECEIPTS = (receipt("a", 4, 10), receipt("a", 5, 11), receipt("a", 7, 11))


@pytest.mark.parametrize("order", list(permutations(RECEIPTS)))
def test_the_answer_to_an_earlier_command_does_not_replace_a_later_one(order: tuple[Receipt, ...]) -> None:
    last = LastReceipt()
    for each in order:
        last.record(each)
    assert last.consistency_token == "a@7"


def test_the_receipt_of_another_aggregate_is_the_last_one_at_any_version() -> None:
    last = LastReceipt()
    for each in (receipt("a", 7, 10), receipt("b", 2, 5), receipt("a", 3, 12)):
        last.record(each)
        assert last.consistency_token == each.consistency_token
