"""Digests of rows: their encoding is fixed, and two different rows never share it."""

from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from contracts.audit.digests import digest_event, digest_fields, digest_request

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
EVENT: tuple[Any, ...] = (b"\1" * 32, "a.b.c", 7, "t.Evented", NOW, '{"actor": "ä"}', b"\0data")
REQUEST: tuple[Any, ...] = ("alice", "6f0a5b3e-8f0e-4c47-9a57-000000000001", "t.Do", b"#" * 32)
OUTCOMES: list[tuple[Any, ...]] = [
    ("ACCEPTED", None, '{"a.b.c":1}'),
    ("WHY_NOT", '{"kind":"rule","details":{}}', None),
]


def test_the_encoding_is_the_documented_one() -> None:
    encoded = b"\0\0\0\3t 1\0\0\0\2\xc3\xa4\xff\xff\xff\xff\0\0\0\x08" + (5).to_bytes(8, "big")
    assert digest_fields("t 1", ("ä", None, 5)) == sha256(encoded).digest()


def test_the_digest_of_an_event_is_that_of_its_fields() -> None:
    assert digest_event(*EVENT) == digest_fields("event 1", EVENT)
    assert digest_event(b"", *EVENT[1:]) == digest_fields("event 1", (b"", *EVENT[1:]))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_digest_of_a_request_is_that_of_its_fields(outcome: tuple[Any, ...]) -> None:
    values = (*REQUEST, *outcome, NOW)
    assert digest_request(*values) == digest_fields("request 1", values)


def test_the_zone_of_a_time_and_the_type_of_a_uuid_make_no_difference() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert digest_fields("t", (NOW,)) == digest_fields("t", (elsewhere,))
    assert digest_fields("t", (UUID(REQUEST[1]),)) == digest_fields("t", (REQUEST[1],))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, b""),
        (0, b"\2" * 32),
        (1, "a.b.d"),
        (2, 8),
        (3, "t.Event"),
        (4, NOW + timedelta(microseconds=1)),
        (5, '{"actor":"ä"}'),
        (6, b"\0dat"),
    ],
)
def test_each_field_changes_the_digest_of_an_event(field: int, value: Any) -> None:
    changed = [*EVENT]
    changed[field] = value
    assert digest_event(*changed) != digest_event(*EVENT)


def test_bytes_that_move_from_one_field_to_the_next_change_the_digest() -> None:
    assert digest_fields("t", ("ab", "c")) != digest_fields("t", ("a", "bc"))
    assert digest_fields("t", ("", None)) != digest_fields("t", (None, ""))
