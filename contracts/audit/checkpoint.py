"""Checkpoints of the audit: what was recorded since the one before, and the past as a whole, signed.

A checkpoint is a text, so that people and programs in every language can read it:

    diptych checkpoint 1
    number 17
    time 2026-01-31T12:00:00.000000Z
    incarnation 2f1c...
    previous <leaf hash of checkpoint 16; - for the first>
    segment events 1200 1350 148 <root over the rows with keys from 1201 to 1350>
    segment audit ...
    root <root of the tree over the checkpoints 1 to 17>
    key 1f6a0c52
    signature <URL-safe Base64 of the Ed25519 signature of all lines before this one>

The lines before `root` are the checkpoint's leaf in the tree. Hashes are hexadecimal. Each line ends with a
line feed.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.audit.merkle import hash_leaf

HEADER = "diptych checkpoint 1"
MAX_SIZE = 1_000_000
"""Bytes of a checkpoint that are read."""
_HASH = "[0-9a-f]{64}"
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_TEXT = re.compile(
    rf"{HEADER}\nnumber (\d{{1,18}})\ntime (\S{{27}})\nincarnation ([0-9a-f-]{{36}})\nprevious ({_HASH}|-)\n"
    rf"((?:segment [a-z_]+ \d{{1,18}} \d{{1,18}} \d{{1,18}} {_HASH}\n)*)"
    rf"root ({_HASH})\nkey ([A-Za-z0-9_-]{{1,32}})\nsignature ([A-Za-z0-9_-]+=*)\n"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of one record."""

    record: str
    after: int
    """The last key before the segment."""
    until: int
    """The last key that belongs to the segment."""
    rows: int
    root: bytes
    """Over the leaves of the rows in order of their keys."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint; not verified."""

    number: int
    """From 1, without gaps."""
    time: datetime
    incarnation: str
    """Of the database."""
    previous: bytes
    """Leaf hash of the checkpoint before it; empty for the first."""
    segments: Sequence[Segment]
    root: bytes = b""
    """Of the tree over the checkpoints up to this one."""
    key_id: str = ""
    signature: bytes = b""

    @property
    def leaf(self) -> bytes:
        """The hash of the checkpoint as a leaf of the tree over all checkpoints."""
        return hash_leaf(self.to_entry().encode())

    def to_entry(self) -> str:
        """Return the lines that are a leaf of the tree."""
        time = self.time.astimezone(UTC).strftime(_TIME)
        lines = [HEADER, f"number {self.number}", f"time {time}", f"incarnation {self.incarnation}"]
        lines.append(f"previous {self.previous.hex() or '-'}")
        lines += [
            f"segment {each.record} {each.after} {each.until} {each.rows} {each.root.hex()}"
            for each in self.segments
        ]
        return "".join(f"{line}\n" for line in lines)

    def to_signed(self) -> bytes:
        """Return the bytes that the signature covers."""
        return f"{self.to_entry()}root {self.root.hex()}\nkey {self.key_id}\n".encode()

    def to_text(self) -> str:
        return join_text(self.to_entry(), self.root, self.key_id, self.signature)

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Return a checkpoint from its text.

        Raises:
            ValueError: it is not the text of a checkpoint.
        """
        match = _TEXT.fullmatch(text) if len(text) <= MAX_SIZE else None
        if match is None:
            raise ValueError("not a checkpoint")
        number, time, incarnation, previous, lines, root, key_id, signature = match.groups()
        try:
            checkpoint = cls(
                int(number),
                datetime.strptime(time, _TIME).replace(tzinfo=UTC),
                incarnation,
                b"" if previous == "-" else bytes.fromhex(previous),
                [_parse_segment(line) for line in lines.splitlines()],
                bytes.fromhex(root),
                key_id,
                urlsafe_b64decode(signature),
            )
        except (ValueError, binascii.Error) as error:
            raise ValueError("not a checkpoint") from error
        if checkpoint.to_text() != text:  # for instance another form of a number
            raise ValueError("not a checkpoint")
        return checkpoint


def join_text(entry: str, root: bytes, key_id: str, signature: bytes) -> str:
    """Return the text of a checkpoint from its parts."""
    encoded = urlsafe_b64encode(signature).decode()
    return f"{entry}root {root.hex()}\nkey {key_id}\nsignature {encoded}\n"


def _parse_segment(line: str) -> Segment:
    _, record, after, until, rows, root = line.split(" ")
    return Segment(record, int(after), int(until), int(rows), bytes.fromhex(root))
