"""The projector's clock shows Redis's time, whatever this machine's clock shows."""

from collections.abc import Iterator
from time import time

import pytest

from projector import clock


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    clock.set_time(time())


def test_it_continues_from_the_time_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([50.0, 50.25, 51.5])
    monkeypatch.setattr(clock, "monotonic", lambda: next(moments))
    clock.set_time(1_000.0)
    assert [clock.read_milliseconds() for _ in range(2)] == [1_000_250, 1_001_500]
