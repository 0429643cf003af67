"""The verifier: compares all that is derived from the events, all the time, a few streams a second. Opt-in.

How it works. One round follows another. A round is what `diptych verify` does, with pauses: `verify_rate`
streams a second, so that its share of the servers is small and constant. Each round sets the number of
differences by check, and logs each one that it names. A round that cannot be finished, because a server is
away, sets nothing; the age of the last whole round shows that.
"""

import asyncio
from time import monotonic

from operations.verify.metrics import DRIFT, ROUND_AGE, STREAMS
from operations.verify.report import CHECKS, Report
from operations.verify.verification import UNVERIFIABLE, verify
from runtime.process import logs
from runtime.process.lifecycle import Lifecycle, cancel_and_wait, read_settings, run_process

PAUSE = 1.0
"""Seconds between two rounds, at least."""
RETRY_PAUSE = 10.0
"""Seconds after a round that could not be finished."""

log = logs.get_logger(__name__)


class Pace:
    """Keeps a rate of streams.

    Args:
        rate: streams a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = monotonic()

    async def rest(self, streams: int) -> None:
        """Rest until the streams compared so far are due."""
        STREAMS.add(streams)
        self._due = max(self._due, monotonic()) + streams / self._rate
        await asyncio.sleep(self._due - monotonic())


async def main(lifecycle: Lifecycle) -> None:
    """Verify in rounds until the process stops."""
    rounds = lifecycle.spawn(run_rounds(lifecycle), "rounds")
    await lifecycle.stopping.wait()
    await cancel_and_wait(rounds)


async def run_rounds(lifecycle: Lifecycle) -> None:
    """Verify round after round, until cancelled."""
    failures = logs.RepeatedErrors(log, "Verification not possible")
    ended_at = 0.0
    ROUND_AGE.observe(lambda: {(): monotonic() - ended_at} if ended_at else {})
    while True:
        pace = Pace(lifecycle.settings.verify_rate)
        try:
            report = await verify(lifecycle.settings, rest=pace.rest)
        except UNVERIFIABLE as error:
            failures.report(error)
            await asyncio.sleep(RETRY_PAUSE)
            continue
        failures.reset()
        ended_at = monotonic()
        publish(report)
        await asyncio.sleep(PAUSE)


def publish(report: Report) -> None:
    """Set the metrics of a round, and log its findings."""
    for check in CHECKS:
        DRIFT.set(report.findings[check], check)
    for problem in report.problems:
        log.error("Derived data differs", check=problem.check, subject=problem.subject, text=problem.text)
    log.info("Verified", findings=report.findings.total(), streams=report.counts["streams"])


if __name__ == "__main__":
    run_process(main, "verifier", read_settings())
