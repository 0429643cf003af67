import json

import pytest
from diptych.ordering.v1.types_pb2 import Order

from operations.rehearse.fields import FieldDifference, diff_json, diff_messages


@pytest.mark.parametrize(
    ("stored", "folded", "path", "text"),
    [
        ({"status": "PLACED"}, {"status": "HELD"}, "status", "PLACED -> HELD"),
        ({"a": {"n": 1, "m": 1}}, {"a": {"n": 2, "m": 1}}, "a.n", "1 -> 2"),
        ({"lines": [{"n": 1}, {"n": 2}]}, {"lines": [{"n": 1}, {"n": 3}]}, "lines[*].n", "2 -> 3"),
        ({"lines": []}, {"lines": [1]}, "lines", "0 elements -> 1 elements"),
        ({}, {"new": True}, "new", "absent -> true"),
        ({"n": 1}, {"n": True}, "n", "1 -> true"),
        ({"order_id": "o-1"}, {"order_id": "o-2"}, "order_id", "o-1 -> o-2"),
        ({"name": "Ada L."}, {"name": "ada"}, "name", "text of 6 characters -> text of 3 characters"),
    ],
)
def test_states_differ_by_field(stored: object, folded: object, path: str, text: str) -> None:
    assert diff_json(json.dumps(stored), json.dumps(folded)) == [FieldDifference(path, text)]
    assert diff_json(json.dumps(folded), json.dumps(folded)) == []


def test_what_is_no_json_is_a_difference() -> None:
    (difference,) = diff_json("{", "{}")
    assert difference.text == "what is stored is not JSON"


def test_views_differ_by_field() -> None:
    before, after = Order(order_id="o-1"), Order(order_id="o-1", state=Order.STATE_PLACED)
    before.total.units, after.total.units = 3, 4
    found = diff_messages(Order, before.SerializeToString(), after.SerializeToString())
    assert found == [
        FieldDifference("total.units", "3 -> 4"),
        FieldDifference("state", "absent -> STATE_PLACED"),
    ]


def test_personal_fields_are_not_shown() -> None:
    before, after = Order(order_id="o-1"), Order(order_id="o-1", cancel_reason="ADA")
    for order, code in ((before, "10115"), (after, "10117")):
        order.shipping_groups.add(shipping_group_id="g-1").shipping_address.postal_code = code
    found = diff_messages(Order, before.SerializeToString(), after.SerializeToString())
    assert found == [
        FieldDifference("shipping_groups[*].shipping_address.postal_code", "*** -> ***"),
        FieldDifference("cancel_reason", "absent -> ***"),
    ]
    stored, folded = (json.dumps({"reason": {"code": value}, "other": value}) for value in ("A", "B"))
    assert diff_json(stored, folded, frozenset({"reason"})) == [
        FieldDifference("reason.code", "*** -> ***"),
        FieldDifference("other", "A -> B"),
    ]


def test_fields_in_another_order_are_no_difference() -> None:
    first, second = Order(order_id="o-1").SerializeToString(), Order(account_id="a").SerializeToString()
    assert diff_messages(Order, first + second, second + first) == []


def test_a_field_that_is_not_known_is_a_difference() -> None:
    data = Order(order_id="o-1").SerializeToString()
    unknown = b"\xfa\x3f\x01x"  # field 1023
    (difference,) = diff_messages(Order, data + unknown, data)
    assert difference.path == "unknown_fields"


def test_what_is_no_message_is_a_difference() -> None:
    (difference,) = diff_messages(Order, b"\xff", b"")
    assert difference == FieldDifference("message", "cannot be compared: DecodeError")
