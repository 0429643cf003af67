"""Any message and any fields become one valid line of bounded length, without secrets."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from runtime.process.logs.console import render_console
from runtime.process.logs.lines import MAX_LINE_LENGTH, render_json

SEPARATORS = "a\nb\r\nc\x00\x1b[2J\x7f\x85\x9b\u2028\u2029\u202e\ufeff"


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError


def make_cycle() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    return cycle


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError


FIELDS: Mapping[str, dict[str, Any]] = {
    "separators": {"correlationId": SEPARATORS},
    "surrogate": {"correlationId": "a\ud800"},
    "unprintable": {"value": Unprintable()},
    "cycle": {"value": make_cycle()},
    "huge text": {"value": "é" * 10**6, "more": "\x01" * 10**5},
    "huge list": {"value": list(range(10**5))},
    "huge number": {"value": 10**5_000},
    "many fields": {f"field{n}": "\u2028" * 10_000 for n in range(200)},
    "odd keys": {"value": {(1, 2): {3, 4}, None: float("nan"), b"\xff": b"\xff"}},
    "error": {"exc_info": UnprintableError()},
    "no error": {"exc_info": True},
    "overridden": {"message": 1, "level": SEPARATORS, "timestamp": None},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
@pytest.mark.parametrize(
    "message", ["Done", SEPARATORS * 10_000, "\udfff"], ids=["short", "long", "surrogate"]
)
@pytest.mark.parametrize("level", ["info", "error"])
def test_anything_is_one_valid_line_of_bounded_length(
    level: str, message: str, fields: dict[str, Any]
) -> None:
    line = render_json("service", level, "logger", message, fields)
    assert len(line) <= MAX_LINE_LENGTH + 1
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    assert {"timestamp", "level", "logger", "service", "message"} <= json.loads(line).keys()
    console = render_console("service", level, "logger", message, fields)
    assert len(console.decode()) < 250 * MAX_LINE_LENGTH
    assert "exc_info" in fields or len(console.decode().splitlines()) == 1


def test_text_that_fits_arrives_unchanged() -> None:
    line = json.loads(render_json("service", "info", "logger", SEPARATORS, {"value": SEPARATORS}))
    assert (line["message"], line["value"]) == (SEPARATORS, SEPARATORS)


def test_a_text_that_is_too_long_keeps_its_beginning_and_its_end() -> None:
    line = json.loads(render_json("s", "error", "l", "m", {"error": "begin" + "x" * 10**6 + "end", "id": 7}))
    assert line["error"].startswith("beginxx")
    assert line["error"].endswith("xxend")
    assert line["id"] == 7


TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("postgresql://user:pa55@db:5432/x is away", "postgresql://***@db:5432/x is away"),
        ("nats://t0ken@nats:4222", "nats://***@nats:4222"),
        ("authorization: Bearer opaque-pa55", "authorization: Bearer ***"),
        (f"invalid {TOKEN}.", "invalid ***."),
        ("http://host/path?q=a@b", "http://host/path?q=a@b"),
    ],
)
@pytest.mark.parametrize("level", ["debug", "warning", "error"])
def test_secrets_are_hidden(level: str, text: str, public: str) -> None:
    assert json.loads(render_json("s", level, "l", text, {"error": text}))["error"] == public
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        fields = {"exc_info": error}
    assert public in json.loads(render_json("s", level, "l", "m", fields))["exception"]
    assert public in render_console("s", level, "l", "m", fields).decode()
