"""Arguments: times, durations and points in time of a stream; what is none of them is one line."""

from datetime import UTC, datetime, timedelta

import click
import pytest
from diptych.operations.v1.operations_service_pb2 import GetStateRequest

from operations.cli_types import MAX_NUMBER, AsOf, AsOfType, Moment, Number

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T12:00", NOON),
        ("2026-01-31 13:00:00+01:00", NOON),
        ("2026-01-31", NOON - timedelta(hours=12)),
    ],
)
def test_a_time_is_in_utc_unless_it_says_otherwise(text: str, expected: datetime) -> None:
    assert Moment().convert(text, None, None) == expected


def test_a_duration_is_a_time_before_now() -> None:
    before = datetime.now(UTC)
    time = Moment().convert("15m", None, None)
    assert before <= time + timedelta(minutes=15) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "12:00", "-1m", "99999999d", "2026-13-01"])
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time like 2026-01-31T12:00:00Z"):
        Moment().convert(text, None, None)
    with pytest.raises(click.BadParameter):
        AsOfType().convert(text, None, None)


def test_a_point_in_time_is_a_version_or_a_time() -> None:
    assert AsOfType().convert("3", None, None) == AsOf(version=3)
    assert AsOfType().convert("2026-01-31T12:00:00Z", None, None) == AsOf(time=NOON)
    request = AsOf(time=NOON).apply(GetStateRequest(stream="a.b.c"))
    assert (request.version, request.time.ToDatetime(UTC)) == (0, NOON)
    assert not AsOf().apply(GetStateRequest()).HasField("time")


@pytest.mark.parametrize("text", ["0", "9223372036854775808", "9" * 5_000])
def test_a_number_that_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a version"):
        AsOfType().convert(text, None, None)


def test_a_number_fits_in_a_request() -> None:
    assert Number(min=0).convert(str(MAX_NUMBER), None, None) == MAX_NUMBER
    for text in ("-1", str(MAX_NUMBER + 1), "9" * 4_000):
        with pytest.raises(click.BadParameter, match="is not in the range"):
            Number(min=0).convert(text, None, None)
