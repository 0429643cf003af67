"""Seats of a row as the bits of an integer: bit 0 is seat 1. A set bit is a taken seat."""

from collections.abc import Iterator, Sequence

from command_server.contexts.ticketing.domain.messages import Row, SeatRange


def to_mask(first: int, count: int) -> int:
    """Return the bits of neighbouring seats."""
    return ((1 << count) - 1) << (first - 1)


def find_together(rows: Sequence[Row], taken: Sequence[int], count: int) -> SeatRange | None:
    """Return free seats next to each other, or None if no row has enough of them.

    The shortest free run that is long enough breaks up the least. Of equal ones it is the first, in the order
    of rows and seats, and its first seats are returned.
    """
    best_length, best = MAX_LENGTH, None
    for row, mask in zip(rows, taken, strict=True):
        for first, length in list_free_runs(row.seats, mask):
            if count <= length < best_length:
                best_length, best = length, SeatRange(row.label, first, count)
                if length == count:
                    return best
    return best


MAX_LENGTH = 1_000
"""More than the length of any run."""


def list_free_runs(seats: int, taken: int) -> Iterator[tuple[int, int]]:
    """Yield the first seat and the length of each run of free seats of a row, in their order."""
    free = ~taken & ((1 << seats) - 1)
    while free:
        lowest = free & -free
        rest = free + lowest  # carries through the run: the bit after it
        length = ((rest & -rest).bit_length() - lowest.bit_length()) if rest else 0
        yield lowest.bit_length(), length
        free &= rest
