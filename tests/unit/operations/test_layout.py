"""Everything that is laid out fits the width, whatever names callers have chosen."""

from hypothesis import given, settings
from hypothesis import strategies as st

from operations.rendering.layout import INDENT, Line, Row, lay_out_items, lay_out_table, lay_out_text

WIDTH = 80
TEXT = st.text(max_size=300)
LONG = "fulfilment.a_projection_with_a_name_that_is_longer_than_any_column_of_ours"


def check_width(lines: list[Line], width: int = WIDTH) -> None:
    for line in lines:
        assert len(line.text) <= width, line
        assert line.text.isprintable(), line


def join(lines: list[Line]) -> str:
    return "".join("".join(line.text.split()) for line in lines)


@settings(max_examples=30)
@given(TEXT, st.integers(40, 200))
def test_a_text_fits_and_loses_nothing_but_blanks(text: str, width: int) -> None:
    lines = lay_out_text(text, width, indent=4)
    check_width(lines, width)
    if text.isprintable():
        assert join(lines) == "".join(text.split())


@settings(max_examples=30)
@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_table_fits_and_loses_nothing_but_blanks(cells: list[list[str]]) -> None:
    lines = lay_out_table([Row(row) for row in cells], WIDTH)
    check_width(lines)
    if all(cell.isprintable() for row in cells for cell in row):
        assert join(lines) == "".join("".join(cell.split()) for row in cells for cell in row)


@settings(max_examples=30)
@given(st.lists(TEXT, max_size=6))
def test_items_fit(items: list[str]) -> None:
    check_width(lay_out_items(items, WIDTH))


def test_the_columns_of_a_table_are_aligned_and_the_last_one_is_wrapped() -> None:
    words = "ready, 12 events behind, the oldest for 3.2 s, 2 parked, 5 archived, and much more"
    lines = [line.text for line in lay_out_table([Row(("a.b", "x")), Row(("ordering.order", words))], WIDTH)]
    assert lines[0] == "a.b             x"
    assert lines[1].startswith("ordering.order  ready, 12 events")
    assert lines[2].startswith(" " * 16 + "archived")


def test_a_row_with_a_long_name_neither_widens_the_others_nor_is_cut() -> None:
    lines = [line.text for line in lay_out_table([Row(("a.b", "x")), Row((LONG, "ready"))], WIDTH)]
    assert lines == ["a.b  x", LONG, " " * INDENT + "ready"]


def test_the_colour_of_a_row_is_that_of_all_its_lines() -> None:
    rows = [Row((LONG, "word " * 40), "red"), Row(("a", "b"))]
    assert {line.colour for line in lay_out_table(rows, WIDTH)[:-1]} == {"red"}
