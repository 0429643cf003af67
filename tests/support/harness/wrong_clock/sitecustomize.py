"""Sets the clock of a Python process wrong, by the seconds that a file holds; monotonic clocks stay right.

Python imports this module at the start of each process that has its folder in PYTHONPATH.
"""

import os
import threading
from datetime import timedelta
from pathlib import Path
from time import sleep, time

import time_machine

INTERVAL = 0.02
"""Seconds between two readings of the file."""


def _follow(file: Path, traveller: time_machine.Traveller) -> None:
    wanted = None
    while True:
        if wanted != (wanted := float(file.read_text())):
            _shift(traveller, wanted)
        sleep(INTERVAL)


def _shift(traveller: time_machine.Traveller, seconds: float) -> None:
    """Set the clock to the real time plus these seconds."""
    traveller.shift(timedelta(seconds=time_machine.escape_hatch.time.time() + seconds - time()))


if name := os.environ.get("WRONG_CLOCK_FILE"):
    traveller = time_machine.travel(time(), tick=True).start()
    _shift(traveller, 0)  # the start has taken up to a second
    threading.Thread(target=_follow, args=(Path(name), traveller), daemon=True).start()
