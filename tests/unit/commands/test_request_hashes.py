"""Hashes of recorded requests: retries match them, and they reveal nothing without the key."""

from hashlib import sha256

import pytest

from command_server.kernel.outcomes import Accepted, RequestIdReused
from command_server.kernel.request_hashes import RequestHashes
from contracts.key_ring import KeyRing, Purpose
from tests.support.builders.people import rotate
from tests.support.builders.requests import group_commit, request
from tests.support.harness.keys import get_ring
from tests.support.harness.memory_event_store import MemoryEventStore
from tests.support.ledger.rules.messages import Deposit
from tests.unit.commands.test_group_commit import execute

DIGEST, OTHER = sha256(b"request").digest(), sha256(b"another").digest()
WITHOUT_KEYS, KEYED = RequestHashes(), RequestHashes(get_ring)


def test_a_hash_cannot_be_computed_without_the_key() -> None:
    recorded = KEYED.compute(DIGEST)
    assert DIGEST not in recorded
    assert recorded[:32].rstrip(b"\0") == b"h"
    assert len(recorded) != len(DIGEST)
    assert KEYED.matches(recorded, DIGEST)
    assert not KEYED.matches(recorded, OTHER)


def test_records_from_before_the_first_key_still_match() -> None:
    assert WITHOUT_KEYS.compute(DIGEST) == DIGEST
    assert KEYED.matches(DIGEST, DIGEST)
    assert not KEYED.matches(DIGEST, OTHER)


@pytest.mark.parametrize("state", ["active", "verify-only", "revoked"])
def test_records_of_an_older_key_still_match(state: str) -> None:
    rotated = RequestHashes(rotate(Purpose.REQUEST, state))
    assert rotated.compute(DIGEST)[:32].rstrip(b"\0") == b"new"
    assert rotated.matches(KEYED.compute(DIGEST), DIGEST)


def test_a_key_is_not_used_before_its_time() -> None:
    soon = rotate(Purpose.REQUEST, begins_in=2999)
    alone = KeyRing([soon().keys["new"]])
    assert RequestHashes(lambda: alone).compute(DIGEST) == DIGEST


def test_a_record_whose_key_is_not_in_the_ring_matches_no_request() -> None:
    assert not WITHOUT_KEYS.matches(KEYED.compute(DIGEST), DIGEST)
    feed = b"r".ljust(32, b"\0") + get_ring().keys["r"].compute_mac(DIGEST)
    assert not KEYED.matches(feed, DIGEST)


@pytest.mark.parametrize(("first", "second"), [(WITHOUT_KEYS, KEYED), (KEYED, KEYED)])
async def test_a_retry_is_answered_and_another_request_is_not(
    first: RequestHashes, second: RequestHashes
) -> None:
    store, deposit = MemoryEventStore(), request(Deposit("a", 5))
    (answer,) = await execute(group_commit(store, hashes=first), [deposit])
    reused = request(Deposit("a", 6), request_id=deposit.request_id)
    assert isinstance(answer, Accepted)
    answers = await execute(group_commit(store, hashes=second), [deposit, deposit, reused])
    assert answers[:2] == [answer, answer]
    assert isinstance(answers[2], RequestIdReused)
    assert len(store.events) == 1


async def test_a_record_has_no_plain_digest_of_its_request() -> None:
    store, deposit = MemoryEventStore(), request(Deposit("a", 5))
    await execute(group_commit(store, hashes=KEYED), [deposit])
    (recorded,) = store.requests.values()
    assert deposit.digest not in recorded.hash
