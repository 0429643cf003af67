"""The order in which rounds measure the versions that `bench.against` compares."""

from itertools import islice
from pathlib import Path

from bench.against import THIS, alternate


def test_each_round_begins_with_the_other_version() -> None:
    orders = islice(alternate({"v1": Path("old"), THIS: Path("new")}), 4)
    assert [[name for name, _ in order] for order in orders] == [["v1", THIS], [THIS, "v1"]] * 2
