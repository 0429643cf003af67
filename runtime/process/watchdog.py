"""Notices an event loop that stands still, from a thread beside it.

How it works. A loop that turns notes so once a second. The thread looks once a second and adds up the time in
which the loop has not turned. After `report_after` seconds it logs the stack of the loop's thread, after
`exit_after` it ends the process, whose supervisor replaces it: nothing that was acknowledged can be lost.

- The thread counts its own time. After a suspension (a frozen container, a laptop's sleep) both lack that
  time, so it does not count; on a busy machine both are late.
- While code in C holds the interpreter's lock, the thread does not run either. Then the health check
  `liveness` does not answer, as with any loop that stands still.
"""

import asyncio
import os
import sys
import threading
import traceback
from time import monotonic

from runtime.process import logs
from runtime.telemetry.metrics import EVENT_LOOP_DELAY, EVENT_LOOP_STALLED

EXIT_STALLED = 70
"""As of any process of which a part has failed."""
INTERVAL = 1.0
"""Seconds between two looks."""

log = logs.get_logger(__name__)


class StallClock:
    """Adds up the seconds in which a loop has not turned although its observer ran."""

    def __init__(self, now: float) -> None:
        self._last = now
        self.stalled = 0.0

    def observe(self, now: float, turned: bool) -> float:
        """Return the seconds; `now` is monotonic, `turned` says whether the loop did since the last time."""
        elapsed, self._last = min(now - self._last, 2 * INTERVAL), now
        self.stalled = 0.0 if turned else self.stalled + elapsed
        return self.stalled


class Watchdog:
    """Watches the running event loop; must be created in it.

    Args:
        report_after: seconds without a turn after which the log shows the loop's stack.
        exit_after: seconds without a turn after which the process ends; 0 for never.
    """

    def __init__(self, report_after: float, exit_after: float) -> None:
        self._report_after = report_after
        self._exit_after = exit_after
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._turned = True
        self._due = monotonic() + INTERVAL
        """When the loop turns next, if nothing holds it up."""
        EVENT_LOOP_STALLED.observe(self.compute_delay)
        self._stopped = threading.Event()
        self._timer = self._loop.call_later(INTERVAL, self._note_turn)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """End the watch. Must be called in the loop."""
        self._stopped.set()
        self._timer.cancel()

    def compute_delay(self) -> float:
        """Return the seconds by which the loop is late now; in any thread."""
        return max(0.0, monotonic() - self._due)

    def _note_turn(self) -> None:
        self._turned = True
        EVENT_LOOP_DELAY.record(self.compute_delay())
        self._due = monotonic() + INTERVAL
        self._timer = self._loop.call_later(INTERVAL, self._note_turn)

    def _run(self) -> None:
        clock, reported = StallClock(monotonic()), 0.0
        while not self._stopped.wait(INTERVAL):
            turned, self._turned = self._turned, False
            stalled = clock.observe(monotonic(), turned)
            if turned and reported:
                log.warning("Event loop turns again", seconds=round(reported, 1))
                reported = 0.0
            elif stalled >= self._report_after:
                if not reported:
                    log.error(
                        "Event loop stands still", seconds=round(stalled, 1), stack=self._format_stack()
                    )
                reported = stalled
            if self._exit_after and stalled >= self._exit_after:
                log.error("Event loop stands still; ending process", seconds=round(stalled, 1))
                logs.flush()
                os._exit(EXIT_STALLED)

    def _format_stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)) if frame else ""
