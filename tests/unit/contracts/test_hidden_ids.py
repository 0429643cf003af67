"""Ids that stand for values: one under each key, and none that tells the value."""

import pytest

from contracts.hidden_ids import CODE_LENGTH, list_hidden_ids
from contracts.key_ring import KeyRing, Purpose
from tests.support.builders.people import rotate
from tests.support.harness.keys import RING

NOW = 1_790_000_000.0


def list_ids(ring: KeyRing, stream_type: str = "a.b", value: str = "ada@example.com") -> tuple[str, ...]:
    return list_hidden_ids(ring, stream_type, value, NOW)


def test_an_id_depends_on_key_type_and_value_and_names_the_key() -> None:
    (id_,) = list_ids(RING)
    assert id_[: -CODE_LENGTH - 1] == "u"
    codes = {each[-CODE_LENGTH:] for each in (id_, *list_ids(RING, "a.c"), *list_ids(RING, value="bob"))}
    assert len(codes) == 3
    assert list_ids(RING) == (id_,)


@pytest.mark.parametrize("state", ["active", "verify-only", "revoked"])
def test_a_value_has_an_id_under_each_key_and_the_signing_one_is_first(state: str) -> None:
    (old,) = list_ids(RING)
    new, *others = list_ids(rotate(Purpose.UNIQUE, state)())
    assert (new[: -CODE_LENGTH - 1], others) == ("new", [old])
    if state == "active":
        assert list_ids(rotate(Purpose.UNIQUE, state, begins_in=2999)()) == (old, new)


def test_a_ring_without_a_key_to_sign_with_is_an_error() -> None:
    with pytest.raises(LookupError, match="no active key for unique"):
        list_ids(KeyRing(key for key in RING.keys.values() if key.purpose != Purpose.UNIQUE))
