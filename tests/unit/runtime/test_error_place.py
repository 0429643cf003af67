"""The place of an error is in the code that was called, not in the caller or a library."""

import json

from runtime.process.error_place import append_place, find_place, split_place


def call_handler(text: str) -> Exception:
    try:
        handle(text)
    except Exception as error:
        return error
    raise AssertionError


def handle(text: str) -> None:
    json.loads(text)


def test_the_place_is_the_last_line_of_the_called_package() -> None:
    place = find_place(call_handler("{"), "no.such.module")
    line = handle.__code__.co_firstlineno + 1
    assert place == f"tests/unit/runtime/test_error_place.py:{line} in handle"


def test_an_error_of_the_caller_itself_has_its_last_line() -> None:
    def fail() -> None:
        raise ValueError

    try:
        fail()
    except ValueError as error:
        line = fail.__code__.co_firstlineno + 1
        assert find_place(error, __name__).endswith(f"test_error_place.py:{line} in fail")
    assert find_place(ValueError(), __name__) == ""


def test_a_place_is_found_again_at_the_end_of_a_text() -> None:
    for text in ("version 3 failed: KeyError: [a]", "", "two\nlines"):
        assert split_place(append_place(text, "a/b.py:7 in react")) == (text, "a/b.py:7 in react")
        assert split_place(append_place(text, "")) == (text, "")
