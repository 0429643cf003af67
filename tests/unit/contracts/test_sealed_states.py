"""States with data of persons: readable with the keys of all of them, and no state to code without keys."""

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from command_server.contexts import ordering
from command_server.contexts.ordering.domain.order import ORDER
from command_server.kernel.context import aggregate_types
from contracts.personal_data import SubjectKey
from contracts.sealed_states import list_state_keys, open_state, seal_state

ADA, BOB = (SubjectKey(name * 16, AESGCM(name * 32)) for name in (b"a", b"b"))
KEYS = {ADA.id: ADA, BOB.id: BOB}
STATE = '{"name": "Ada"}'
CODEC = aggregate_types((ordering.CONTEXT,))[ORDER.stream_type].snapshots


def seal(*keys: SubjectKey) -> str:
    state = seal_state(STATE, "a.b.c", keys)
    assert state is not None
    return state


def test_a_state_needs_the_keys_of_all_persons() -> None:
    sealed = seal(ADA, BOB)
    assert "Ada" not in sealed
    assert list_state_keys(sealed) == [ADA.id, BOB.id]
    assert open_state(sealed, "a.b.c", KEYS) == STATE
    assert open_state(sealed, "a.b.c", {ADA.id: ADA}) is None
    assert open_state(sealed, "a.b.c", KEYS | {BOB.id: SubjectKey(BOB.id, None)}) is None
    assert open_state(sealed, "a.b.d", KEYS) is None


def test_a_state_in_clear_stays_so_and_none_is_none() -> None:
    assert (open_state(STATE, "a.b.c", {}), list_state_keys(STATE)) == (STATE, [])
    assert (open_state(None, "a.b.c", {}), list_state_keys(None)) == (None, [])


@pytest.mark.parametrize("stored", ['["sealed",["zz"],""]', '["sealed",[]', '["sealed",["61"],"?"]'])
def test_what_is_damaged_cannot_be_opened(stored: str) -> None:
    list_state_keys(stored)
    assert open_state(stored, "a.b.c", KEYS) is None


def test_a_state_is_not_stored_once_a_key_was_destroyed() -> None:
    assert seal_state(STATE, "a.b.c", [ADA, SubjectKey(BOB.id, None)]) is None


def test_code_without_the_keys_does_not_take_it_for_a_state() -> None:
    with pytest.raises(msgspec.ValidationError):
        CODEC.decode(seal(ADA))
