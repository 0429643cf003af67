"""Rows as the arrays that a statement takes."""

from collections.abc import Iterable, Sequence
from typing import Any


def to_columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Return the columns of rows, which may be none."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
