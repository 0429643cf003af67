"""Durations and retentions as text."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from runtime.process.durations import parse_duration
from runtime.process.settings import Settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", timedelta(seconds=90)), ("1h", timedelta(hours=1)), ("30d", timedelta(days=30))],
)
def test_a_duration(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "d", "30", "30 d", "-1d", "1w", "1.5h", "²d", "9" * 30 + "d"])
def test_text_that_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time like 90s, 15m, 1h or 7d"):
        parse_duration(text)


def test_a_retention_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_KEEP_REQUESTS", "unlimited")
    assert Settings().keep_requests is None


def test_settings_are_handed_on_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Settings().model_dump().items():
        monkeypatch.setenv(f"DIPTYCH_{name.upper()}", str(value))
    assert Settings() == Settings(**Settings().model_dump())
    assert Settings().keep_requests == timedelta(days=30)


@pytest.mark.parametrize("text", ["0s", "59m", "40000d", "", "forever"])
def test_a_retention_out_of_bounds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_KEEP_REQUESTS", text)
    with pytest.raises(ValidationError, match=r"is not (between|a time)"):
        Settings()
