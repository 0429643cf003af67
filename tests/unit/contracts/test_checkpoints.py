"""A stored checkpoint is read by projectors, housekeeping, status and verify alike."""

import pytest

from contracts.view_layout import parse_checkpoint


@pytest.mark.parametrize(
    ("stored", "parsed"),
    [
        (b"e/7", ("e", 7)),
        (b"e/x", ("e", 0)),
        (b"e/", ("e", 0)),
        (b"e/-1", ("e", 0)),
        ("e/٣".encode(), ("e", 0)),
        (b"garbage", ("garbage", 0)),
        (b"\xff/3", ("�", 3)),
        (b"", ("", 0)),
        (None, ("", 0)),
    ],
)
def test_a_sequence_that_cannot_be_read_is_the_start(stored: bytes | None, parsed: tuple[str, int]) -> None:
    assert parse_checkpoint(stored) == parsed
