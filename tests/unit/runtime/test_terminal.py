"""What goes to a terminal has no control characters but the line ends of our own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.process.terminal import escape, escape_lines


@given(st.text(st.characters(exclude_categories=())))
def test_an_escaped_text_is_one_printable_line(text: str) -> None:
    assert escape(text).isprintable()
    assert all(line.isprintable() for line in escape_lines(text).split("\n"))


@given(st.text())
def test_json_stays_json_of_the_same_value(text: str) -> None:
    assert json.loads(escape(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("grün, größer", "grün, größer"),
        ("\x1b[2J", "\\u001b[2J"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\x9b2J\x7f", "\\u009b2J\\u007f"),
        ("\u202e\U000e0001\udcff", "\\u202e\\udb40\\udc01\\udcff"),
    ],
)
def test_the_escapes_are_those_of_json(text: str, escaped: str) -> None:
    assert escape(text) == escaped
