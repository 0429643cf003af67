"""Marks of sealed rows: their keys, and the first bytes of their leaves.

They name the rows of a segment that differ from what was sealed. That any does, its root shows; marks are
short, and could be changed together with the rows.
"""

import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from runtime.audit.records import Row

SIZE = 4
"""Bytes of a mark."""


def encode_marks(rows: Sequence[Row]) -> tuple[bytes, bytes]:
    """Return the keys and the marks of rows."""
    keys = [0, *(row.key for row in rows)]
    differences = array("q", [later - earlier for earlier, later in pairwise(keys)])
    if sys.byteorder == "big":
        differences.byteswap()
    return zlib.compress(differences.tobytes()), b"".join(row.leaf[:SIZE] for row in rows)


def decode_marks(keys: bytes, marks: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the key and the mark of each row."""
    differences = array("q")
    differences.frombytes(zlib.decompress(keys))
    if sys.byteorder == "big":
        differences.byteswap()
    for index, key in enumerate(accumulate(differences)):
        yield key, marks[index * SIZE : (index + 1) * SIZE]
