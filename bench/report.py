"""The result of a run, for people and, as JSON, for comparing runs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.load import Result

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Compared:
    """A method's rounds beside those of an echo of the same messages."""

    name: str
    goal: float
    """The share of the echo's rate that is expected of it."""
    rounds: Sequence[Result]
    echo: Sequence[Result]

    @property
    def ratio(self) -> float:
        """The share of the echo's rate, the median of the rounds."""
        return median(ours.rate / echo.rate for ours, echo in zip(self.rounds, self.echo, strict=True))

    def lines(self) -> list[str]:
        """Return the method's and its echo's lines of the table."""
        verdict = f"{self.ratio:.2f} of the echo, expected {self.goal:.2f} or better"
        return [
            _line(f"echo of {self.name}", self.echo, ""),
            _line(self.name, self.rounds, verdict),
        ]


def _line(name: str, rounds: Sequence[Result], note: str) -> str:
    rate, p50, p99 = (median(getattr(each, what) for each in rounds) for what in ("rate", "median", "p99"))
    return f"{name:22}{rate:10,.0f}/s{p50:9.1f} ms{p99:9.1f} ms   {note}".rstrip()


def show(compared: Sequence[Compared], feed: bool) -> None:
    """Print the table; `feed` tells whether relay and projector worked meanwhile."""
    print(f"relay and projector {'work' if feed else 'rest'}; 64 in flight; medians of the rounds")
    print(f"{'':22}{'rate':>12}{'half':>12}{'99 %':>12}")
    for each in compared:
        print(*each.lines(), sep="\n")


def keep(compared: Sequence[Compared], feed: bool) -> Path:
    """Write the run into a file of its own and return where."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    content = {
        "at": now.isoformat(),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "feed": feed,
        "methods": [asdict(each) | {"ratio": each.ratio} for each in compared],
    }
    path.write_text(json.dumps(content, indent=2))
    return path
