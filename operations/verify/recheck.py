"""Repeated checks, which separate drift from delay on a live system.

How it works. One check of a live system proves little, because an event may be on its way and a view may
change between two reads. A problem is therefore reported according to its kind:

- A `transient` problem (something is behind) is reported if it persists until the deadline.
- An `unstable` problem (the subject changed during the check) is never reported; a note counts the streams.
- Any other problem is reported once CONFIRMATIONS consecutive checks have found the same ones.

`RecheckQueue` does this for streams, a page at a time; `confirm` does it for any single check.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic

from operations.verify.model import Problem
from operations.verify.sources import select_page

RECHECK_INTERVAL = 0.2
"""Seconds between two checks."""
CONFIRMATIONS = 3
"""Consecutive checks with the same result that prove drift."""

CheckStreams = Callable[[Mapping[str, int]], Awaitable[Mapping[str, Sequence[Problem]]]]
"""Takes streams with a version that each must have reached; returns the problems by stream."""


@dataclass(slots=True)
class _Entry:
    """A stream with problems."""

    target_version: int
    fingerprint: int
    """A hash of the problems that are not transient; 0 where there are none."""
    confirmations: int = 1


class RecheckQueue:
    """The streams to check again.

    Args:
        page_size: streams that are checked at once.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._entries: dict[str, _Entry] = {}

    def add(self, targets: Mapping[str, int], problems: Mapping[str, Sequence[Problem]]) -> None:
        """Queue the streams in which a first check has found problems."""
        for name, stream_problems in problems.items():
            self._entries[name] = _Entry(targets[name], _fingerprint(stream_problems))

    async def run(self, check: CheckStreams, report: Callable[[Problem], None], deadline: float) -> int:
        """Check every stream until it is correct, its drift is confirmed, or the deadline has passed.

        Args:
            check: checks a page of streams.
            report: called with every confirmed problem.
            deadline: of `time.monotonic`.

        Returns:
            The number of streams that changed during every check.
        """
        unstable = rounds = 0
        while self._entries:
            await asyncio.sleep(RECHECK_INTERVAL)
            rounds += 1
            # Drift needs CONFIRMATIONS checks even where the deadline leaves no time for them.
            final = rounds >= CONFIRMATIONS and monotonic() > deadline
            left = {name: entry.target_version for name, entry in self._entries.items()}
            while page := self._select_page(left):
                problems = await check(page)
                for name in page:
                    del left[name]
                    unstable += self._update(name, problems.get(name, ()), report, final)
        return unstable

    def _select_page(self, targets: Mapping[str, int]) -> Mapping[str, int]:
        return select_page(dict(islice(targets.items(), self._page_size)))

    def _update(
        self, name: str, problems: Sequence[Problem], report: Callable[[Problem], None], final: bool
    ) -> bool:
        """Remove a stream with a final result; return whether it changed during every check."""
        entry, fingerprint = self._entries[name], _fingerprint(problems)
        entry.confirmations = entry.confirmations + 1 if fingerprint == entry.fingerprint else 1
        entry.fingerprint = fingerprint
        drift = fingerprint != 0 and entry.confirmations >= CONFIRMATIONS
        if problems and not drift and not final:
            return False
        del self._entries[name]
        for problem in problems:
            if not problem.unstable and (final or not problem.transient):
                report(problem)
        return any(problem.unstable for problem in problems) and final


async def confirm(check: Callable[[], Awaitable[Sequence[Problem]]], deadline: float) -> Sequence[Problem]:
    """Repeat a check until it finds nothing, its result is confirmed, or the deadline has passed.

    Returns:
        The problems of the last check. Transient ones are among them only after the deadline.
    """
    confirmations, previous = 0, None
    while True:
        problems = await check()
        confirmations = confirmations + 1 if problems == previous else 1
        previous = problems
        transient = any(problem.transient for problem in problems)
        confirmed = not transient and confirmations >= CONFIRMATIONS
        if not problems or confirmed or monotonic() > deadline:
            return problems
        await asyncio.sleep(RECHECK_INTERVAL)


def _fingerprint(problems: Sequence[Problem]) -> int:
    lasting = frozenset(problem for problem in problems if not problem.transient)
    return hash(lasting) if lasting else 0
