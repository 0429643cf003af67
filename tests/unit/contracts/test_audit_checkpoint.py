"""Checkpoints as texts: one form each, and nothing else is one."""

from datetime import UTC, datetime

import pytest

from contracts.audit.checkpoint import Checkpoint, Segment

INCARNATION = "2f1c7a30-0000-4000-8000-000000000000"
CHECKPOINT = Checkpoint(
    17,
    datetime(2026, 1, 31, 12, tzinfo=UTC),
    INCARNATION,
    b"\1" * 32,
    [Segment("events", 1200, 1350, 148, b"\2" * 32), Segment("audit", 0, 9, 9, b"\3" * 32)],
    b"\4" * 32,
    "1f6a0c52",
    b"\5" * 64,
)
TEXT = f"""\
diptych checkpoint 1
number 17
time 2026-01-31T12:00:00.000000Z
incarnation {INCARNATION}
previous {"01" * 32}
segment events 1200 1350 148 {"02" * 32}
segment audit 0 9 9 {"03" * 32}
root {"04" * 32}
key 1f6a0c52
signature BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQ==
"""


def test_a_checkpoint_has_the_documented_text() -> None:
    assert CHECKPOINT.to_text() == TEXT
    assert Checkpoint.parse(TEXT) == CHECKPOINT
    assert TEXT.startswith(CHECKPOINT.to_entry())
    assert TEXT.startswith(CHECKPOINT.to_signed().decode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("checkpoint 1", "checkpoint 2"),
        ("number 17", "number 017"),
        ("number 17", "number -1"),
        ("T12:00", "T25:00"),
        ("000000Z\n", "000000Z\n\n"),
        ("148", "148.0"),
        ("02" * 32, "02" * 31),
        ("segment events", "segment Events"),
        ("BQUF", "BQ=F"),
        ("\n", "\r\n"),
    ],
)
def test_another_text_is_no_checkpoint(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match="not a checkpoint"):
        Checkpoint.parse(TEXT.replace(old, new))


def test_a_long_text_is_no_checkpoint() -> None:
    with pytest.raises(ValueError, match="not a checkpoint"):
        Checkpoint.parse(TEXT + "\n" * 1_000_000)
