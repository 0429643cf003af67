"""Lines for people that fit a width: texts, tables and entries.

Everything is escaped before it is laid out: texts of callers and servers neither move the cursor nor forge
a line.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap

from runtime.process.terminal import escape

GAP = "  "
"""Between two cells."""
MAX_CELL = 36
"""Characters of a cell that widens its column; a row with a longer one is laid out by itself."""
MIN_LAST_CELL = 24
"""Characters that the last column needs to be wrapped beside the others."""
INDENT = 4
BAD, REJECTED = "red", "yellow"
"""The colours of findings and errors, and of commands and calls that were rejected or refused."""


@dataclass(frozen=True)
class Line:
    """A line of text, and the colour that it has on a terminal; empty for none."""

    text: str
    colour: str = ""


@dataclass(frozen=True)
class Row:
    """The cells of a table's row, and its colour."""

    cells: Sequence[str]
    colour: str = ""


def lay_out_text(text: str, width: int, colour: str = "", indent: int = 0, hanging: int = 2) -> list[Line]:
    """Return a text as lines of this width at most; the later ones are indented further."""
    first, later = " " * indent, " " * (indent + hanging)
    lines = wrap(
        escape(text),
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return [Line(line, colour) for line in lines or [first.rstrip()]]


def lay_out_items(items: Iterable[str], width: int, indent: int = INDENT) -> list[Line]:
    """Return items side by side, as many in a line as fit; only one that is longer than a line is broken."""
    lines: list[str] = []
    for item in map(escape, filter(None, items)):
        if lines and len(lines[-1]) + len(GAP) + len(item) <= width:
            lines[-1] += GAP + item
        else:
            lines += [line.text for line in lay_out_text(item, width, indent=indent)]
    return [Line(line) for line in lines]


def lay_out_table(rows: Sequence[Row], width: int) -> list[Line]:
    """Return rows with aligned cells. The last cell is wrapped; a row with too long cells is too."""
    table = [[escape(cell) for cell in row.cells] for row in rows]
    columns = zip_longest(*table, fillvalue="")
    widths = [max((len(cell) for cell in column if len(cell) <= MAX_CELL), default=0) for column in columns]
    return [
        Line(line, row.colour)
        for row, cells in zip(rows, table, strict=True)
        for line in _lay_out_row(cells, widths, width)
    ]


def _lay_out_row(cells: Sequence[str], widths: Sequence[int], width: int) -> Iterator[str]:
    *first, last = cells
    head = "".join(f"{cell:{size}}{GAP}" for cell, size in zip(first, widths, strict=False))
    is_aligned = all(len(cell) <= size for cell, size in zip(first, widths, strict=False))
    if is_aligned and (len(head) + len(last) <= width or len(head) + MIN_LAST_CELL <= width):
        lines = wrap(last, width - len(head), break_on_hyphens=False) or [""]
        yield (head + lines[0]).rstrip()
        yield from (" " * len(head) + line for line in lines[1:])
    else:
        yield from (line.text for line in lay_out_items(cells[:1], width, indent=0))
        yield from (line.text for line in lay_out_items(cells[1:], width))
