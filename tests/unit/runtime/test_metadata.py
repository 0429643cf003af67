"""Metadata is taken over only if it matches a pattern: ids, and the grammar of traceparent."""

import pytest

from runtime.grpc import metadata
from runtime.grpc.metadata import CAUSATION_ID, CORRELATION_ID, Metadata
from runtime.telemetry import trace_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BAD = [
    *(
        "",
        " ",
        "a b",
        "a\0",
        "a\r",
        "a\n",
        "a\x1b[2J",
        "a\x7f",
        "a\x9b",
        "ä",
        "a\u202e",
        "a\udcff",
        "a;b",
        "a%00",
    ),
    *("x" * 129, "x" * 10_000, b"bytes"),
]


def read_ids(*items: tuple[str, str | bytes]) -> tuple[dict[str, str], list[str]]:
    metadata.set_current(items)
    return metadata.read_ids()


@pytest.mark.parametrize("key", [CORRELATION_ID, CAUSATION_ID])
@pytest.mark.parametrize("value", BAD)
def test_an_id_that_is_none_is_not_taken_over(key: str, value: str | bytes) -> None:
    assert read_ids((key, value), ("user-agent", "a\x1b"), (f"{key}-bin", b"c-1")) == ({}, [key])


def test_ids_are_taken_over() -> None:
    ids = {CORRELATION_ID: "x" * 64, CAUSATION_ID: "ledger.cheque.c-1@12"}
    assert read_ids(*ids.items()) == (ids, [])
    for cause in ("c-1", "ledger.collection/c-1", "urn:uuid:6f6dd3a5-1f5b-5c7e-9a43-2d7f0c1e8b64", "x" * 128):
        assert read_ids((CAUSATION_ID, cause)) == ({CAUSATION_ID: cause}, [])
    for value in ("x" * 65, "a.b", "a/b"):
        assert read_ids((CORRELATION_ID, value)) == ({}, [CORRELATION_ID])


@pytest.mark.parametrize("values", [("a", "b"), ("a", "a"), ("a", "b", "c"), ("a", "\x1b"), ("\x1b", "a")])
def test_one_of_several_ids_is_not_taken_over(values: tuple[str, ...]) -> None:
    several: Metadata = [(CORRELATION_ID, value) for value in values]
    assert read_ids(*several, (CAUSATION_ID, "c")) == ({CAUSATION_ID: "c"}, [CORRELATION_ID])


@pytest.mark.parametrize(
    "value", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-more"]
)
def test_a_traceparent_is_taken_over_as_version_00(value: str) -> None:
    assert trace_context.parse(value) == f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "00",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-01-",
            f"00-{TRACE}-{SPAN}-01-more",
            f"00-{TRACE}-{SPAN}-1",
        ),
        *(f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
        *(f"00-{TRACE.upper()}-{SPAN}-01", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n"),
        *(f"cc-{TRACE}-{SPAN}-01more", f"cc-{TRACE}-{SPAN}-01-\nx", f"00-{TRACE}-{SPAN}-0\x1b"),
    ],
)
def test_a_malformed_traceparent_is_dropped(value: str) -> None:
    assert trace_context.parse(value) is None
