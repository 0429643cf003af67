"""Looking again: drift is what stays the same, and what is behind gets time to catch up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from operations.verify.report import Problem, Report
from operations.verify.sources.event_store import PAGE

PAUSE = 0.2
"""Seconds between looks."""
LOOKS = 3
"""How often the same has to be seen before it is drift."""

Look = Callable[[Mapping[str, int]], Awaitable[Mapping[str, Sequence[Problem]]]]
"""Returns what is wrong with streams, each with a version that it must have reached."""


@dataclass(slots=True)
class Suspect:
    """A stream with which something was wrong."""

    target: int
    certain: int
    """A hash of what was wrong that does not wait for anything; 0 where all of it waits."""
    looks: int = 1


class Suspects:
    """The streams to look at again, by name."""

    def __init__(self) -> None:
        self._streams: dict[str, Suspect] = {}

    def note(self, targets: Mapping[str, int], problems: Mapping[str, Sequence[Problem]]) -> None:
        """Remember the streams of a first look."""
        for name, wrong in problems.items():
            self._streams[name] = Suspect(targets[name], _certain(wrong))

    async def settle(self, look: Look, report: Report, deadline: float) -> None:
        """Look until each is right, or wrong in the same way LOOKS times, or the deadline has passed."""
        changing = looks = 0
        while self._streams:
            await asyncio.sleep(PAUSE)
            looks += 1
            last = looks >= LOOKS and monotonic() > deadline
            for names in _chunks(list(self._streams)):
                now = await look({name: self._streams[name].target for name in names})
                for name in names:
                    changing += self._judge(name, now.get(name, ()), report, last)
        if changing:
            report.notes.append(f"{changing:,} streams changed whenever they were looked at")

    def _judge(self, name: str, problems: Sequence[Problem], report: Report, last: bool) -> bool:
        """Decide whether a stream is done with; return whether it could not be seen for certain."""
        suspect, certain = self._streams[name], _certain(problems)
        suspect.looks = suspect.looks + 1 if certain == suspect.certain else 1
        suspect.certain = certain
        drift = certain != 0 and suspect.looks >= LOOKS
        if problems and not drift and not last:
            return False
        del self._streams[name]
        for problem in problems:
            if not problem.changes and (last or not problem.waits):
                report.add(problem)
        return any(problem.changes for problem in problems) and last


async def settled(look: Callable[[], Awaitable[Sequence[Problem]]], deadline: float) -> Sequence[Problem]:
    """Return what is wrong in LOOKS looks one after the other, or still wrong at the deadline."""
    same, before = 0, None
    while True:
        problems = await look()
        same = same + 1 if problems == before else 1
        before = problems
        certain = not any(problem.waits for problem in problems)
        if not problems or (certain and same >= LOOKS) or monotonic() > deadline:
            return problems
        await asyncio.sleep(PAUSE)


def _certain(problems: Sequence[Problem]) -> int:
    certain = frozenset(problem for problem in problems if not problem.waits)
    return hash(certain) if certain else 0


def _chunks(names: Sequence[str]) -> Sequence[Sequence[str]]:
    return [names[start : start + PAGE] for start in range(0, len(names), PAGE)]
